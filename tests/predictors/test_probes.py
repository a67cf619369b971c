"""Probes learn from training examples alone, know what they do not know, and are told apart by what they saw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from vlm_tune.data import Dataset
from vlm_tune.embedding import FunctionEmbedder, PixelEmbedder
from vlm_tune.errors import ImageError, PredictorError
from vlm_tune.evaluation import Evaluator
from vlm_tune.predictors import Baseline, Predictor
from vlm_tune.predictors.probes import LinearProbe
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "dent", "scratch"))


def read(images: list[bytes]) -> list[list[float]]:
    """Return the vectors written in made-up images."""
    if any(image == b"broken" for image in images):
        raise ImageError("broken", "no image")
    return [[float(number) for number in image.split()] for image in images]


TABLE = FunctionEmbedder(read, name="table")  # type: ignore[arg-type]


def photo(number: int, label: str, vector: np.ndarray, group: str | None = None) -> Example:
    words = " ".join(f"{value:.6f}" for value in vector)
    return Example(id=f"{number}.jpg", image=words.encode(), label=label, group=group)


def clouds(each: int = 20, *, spread: float = 0.3, seed: int = 0, task: Task = TASK) -> Dataset:
    """Return photos whose vectors lie around one direction per class."""
    rng, centres = np.random.default_rng(seed), np.eye(3, 5)
    photos = [
        photo(3 * n + c, label, centres[c] + spread * rng.standard_normal(5))
        for n in range(each)
        for c, label in enumerate(TASK.classes)
    ]
    return Dataset(photos, task=task)


def baselines(train: Dataset) -> list[Baseline]:
    return [Baseline.linear_probe(train, TABLE), Baseline.knn(train, TABLE, k=3)]


@pytest.mark.parametrize("which", [0, 1])
def test_what_can_be_told_apart_is_told_apart(which: int) -> None:
    baseline = baselines(clouds())[which]
    assert isinstance(baseline, Predictor)
    answers = list(baseline.predict(clouds(seed=1).examples, TASK))
    right = sum(a.label == e.label for a, e in zip(answers, clouds(seed=1), strict=True))
    assert right >= 0.9 * 60
    for answer in answers:
        assert answer.scores is not None
        assert max(answer.scores, key=answer.scores.__getitem__) == answer.label
        assert sum(map(math.exp, answer.scores.values())) == pytest.approx(1)
        assert answer.latency_s is not None


@pytest.mark.parametrize("which", [0, 1])
def test_the_fingerprint_tells_what_was_learnt_from(which: int) -> None:
    fingerprint = baselines(clouds())[which].fingerprint
    assert baselines(Dataset(clouds().examples[::-1], task=TASK))[which].fingerprint == fingerprint
    relabelled = clouds().relabel({"0.jpg": "dent"})
    other = FunctionEmbedder(read, name="another table")  # type: ignore[arg-type]
    others = [
        baselines(relabelled)[which],
        baselines(clouds(seed=2))[which],
        [Baseline.linear_probe(clouds(), other), Baseline.knn(clouds(), other, k=3)][which],
        [Baseline.linear_probe(clouds(), TABLE, seed=1), Baseline.knn(clouds(), TABLE, k=4)][which],
    ]
    assert len({fingerprint, *(one.fingerprint for one in others)}) == 5


def test_an_embedder_that_nobody_can_tell_apart_shares_no_answers() -> None:
    nameless = FunctionEmbedder(read)  # type: ignore[arg-type]
    assert Baseline.knn(clouds(), nameless).fingerprint != Baseline.knn(clouds(), nameless).fingerprint


@pytest.mark.parametrize("which", [0, 1])
def test_a_photo_that_cannot_be_read_fails_alone(which: int) -> None:
    broken = Example(id="broken.jpg", image=b"broken", label="dent")
    gone = Example(id="gone.jpg", image=Path("/nowhere/gone.jpg"), label="dent")
    good = clouds(1).examples
    answers = list(baselines(clouds())[which].predict([good[0], broken, good[1], gone, good[2]], TASK))
    assert [answer.outcome for answer in answers] == ["answered", "failed", "answered", "failed", "answered"]
    assert [answer.label for answer in answers[::2]] == [example.label for example in good]
    assert [a.outcome for a in baselines(clouds())[which].predict([broken], TASK)] == ["failed"]


def test_a_training_photo_that_cannot_be_read_is_named() -> None:
    train = Dataset([*clouds().examples, Example(id="gone", image=Path("/gone.jpg"), label="dent")], task=TASK)
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        list(Baseline.linear_probe(train, TABLE).predict(clouds(1).examples, TASK))


def test_regularisation_is_chosen_from_the_training_examples() -> None:
    def chosen(train: Dataset) -> float:
        probe = LinearProbe(train, TABLE, seed=0)
        rows = np.array([[float(x) for x in example.read().split()] for example in train])
        return probe._strength(rows, np.array([TASK.classes.index(example.label) for example in train]))

    assert chosen(clouds(40, spread=0.1)) >= 100 * chosen(clouds(40, spread=3.0))
    assert chosen(clouds(1)) == 1.0


def test_photos_of_one_group_are_on_one_side_of_every_fold() -> None:
    rng = np.random.default_rng(0)
    examples = [photo(n, TASK.classes[n % 3], rng.standard_normal(5), group=f"part {n % 10}") for n in range(60)]
    probe = LinearProbe(Dataset(examples, task=TASK), TABLE, seed=0)
    folds = list(probe._folds(np.arange(60) % 3))
    assert len(folds) >= 2
    for fit, held in folds:
        assert not {examples[i].group for i in fit} & {examples[i].group for i in held}


def test_a_class_without_training_examples_is_never_the_answer_but_never_impossible() -> None:
    train = clouds().filter(lambda example: example.label != "scratch")
    for baseline in baselines(train):
        for answer in baseline.predict(clouds(seed=1).examples, TASK):
            assert answer.label != "scratch"
            assert answer.scores is not None
            assert math.isfinite(answer.scores["scratch"])


def test_on_a_tie_the_nearest_neighbour_decides() -> None:
    rows = {"crack": [1.0, 0.0], "dent": [0.9, 0.3], "scratch": [0.0, 1.0]}
    examples = [photo(n, label, np.array(row)) for n, (label, row) in enumerate(rows.items())]
    [answer] = Baseline.knn(Dataset(examples, task=TASK), TABLE, k=3).predict(
        [photo(9, "dent", np.array([0.9, 0.31]))], TASK
    )
    assert answer.label == "dent"
    with pytest.raises(PredictorError, match="between 1 and all 3"):
        Baseline.knn(Dataset(examples, task=TASK), TABLE, k=4)


SEVERAL = TASK.model_copy(update={"multi_label": True})


def several(seed: int) -> Dataset:
    """Return photos whose vectors are the sum of their classes' directions."""
    rng, photos = np.random.default_rng(seed), []
    for number in range(90):
        has = [bool(rng.integers(2)), bool(rng.integers(2)), False]
        vector = np.array([*has, 0.5, 0.5]) + 0.05 * rng.standard_normal(5)
        label = SEVERAL.join(name for name, there in zip(SEVERAL.classes, has, strict=True) if there)
        photos.append(photo(number, label, vector))
    return Dataset(photos, task=SEVERAL)


@pytest.mark.parametrize("which", [0, 1])
def test_several_classes_are_answered_one_versus_rest(which: int) -> None:
    evaluation = Evaluator(several(1)).run(baselines(several(0))[which])
    assert evaluation.accuracy.value > 0.9
    answer: Prediction = next(iter(evaluation.predictions))
    assert answer.scores is not None
    assert math.exp(answer.scores["scratch"]) < 0.3


def test_the_default_embedder_needs_no_weights() -> None:
    from vlm_tune.images import blank

    examples = [Example(id=f"{n}", image=blank(32 + n, 32), label=TASK.classes[n % 3]) for n in range(6)]
    baseline = Baseline.knn(Dataset(examples, task=TASK), PixelEmbedder(), k=1)
    assert [a.outcome for a in baseline.predict(examples, TASK)] == ["answered"] * 6
    assert baseline.name == "1 nearest neighbours by pixels"
    assert Baseline.linear_probe(Dataset(examples, task=TASK)).name.startswith("linear probe on ")


@pytest.mark.data
def test_on_real_steel_a_probe_of_textures_beats_guessing_by_far(test_data: Path) -> None:
    folder = test_data / "neu_det"
    kinds = sorted(path.name for path in folder.iterdir() if path.is_dir())
    photos = [path for kind in kinds for path in sorted((folder / kind).glob("*.jpg"))[::5]]
    examples = [Example(id=path.name, image=path, label=path.parent.name) for path in photos]
    data = Dataset(examples, task=Task(prompt="Which defect?", classes=tuple(kinds))).split(test=0.3, seed=0)
    evaluator = Evaluator(data.test)
    assert evaluator.run(Baseline.linear_probe(data.train, PixelEmbedder())).accuracy.low > 0.6
    assert evaluator.run(Baseline.knn(data.train, PixelEmbedder(), k=3)).accuracy.low > 0.5
