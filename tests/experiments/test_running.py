"""A curve is trained point by point: all on the same test images, nothing twice, and one failure stops no other."""

from __future__ import annotations

import json
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import Child
from vlm_tune.cost import card_of, gpu_price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import DataError, SplitError, StorageError, TrainingError
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.experiments import CurvePoint, LearningCurve, noted, running
from vlm_tune.experiments.backends import LocalBackend, Outcome
from vlm_tune.records import Example
from vlm_tune.testing import tiny_dataset
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.training.planning.estimate import device_of
from vlm_tune.vlm import VLM

SIZES, SEEDS = (12, 6), (0, 1)
CONFIG = TrainConfig(r=2, epochs=1, batch_size=4, learning_rate=1e-2, regions=("language",))


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Twenty-seven coloured squares to train on and nine to judge on."""
    return tiny_dataset(12)


@pytest.fixture(scope="module")
def trainer(tiny_qwen3_vl: Path) -> LoRATrainer:
    return LoRATrainer(VLM(tiny_qwen3_vl, name="tiny"), CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("curve")


@pytest.fixture(scope="module")
def curve(trainer: LoRATrainer, data: Dataset, folder: Path) -> LearningCurve:
    """A curve that was run without a break; its folder is read only."""
    return LearningCurve.run(trainer, data, SIZES, SEEDS, run_dir=folder)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes that are trained in the test, which are not to be."""
    sizes: list[int] = []
    fit = LoRATrainer.fit

    def counted(self: LoRATrainer, train: Dataset, **others: Any) -> Adapter:
        sizes.append(len(train))
        return fit(self, train, **others)

    monkeypatch.setattr(LoRATrainer, "fit", counted)
    return sizes


def test_every_size_and_seed_has_a_point_on_the_same_test_images(curve: LearningCurve, data: Dataset) -> None:
    assert [(point.size, point.seed) for point in curve.points] == [(6, 0), (6, 1), (12, 0), (12, 1)]
    assert len({point.test_set for point in curve.points}) == 1
    for point in curve.points:
        assert point.n_test == len(data.test) == 9
        assert point.train_accuracy is not None
        assert point.train_accuracy.n == point.size
        assert point.seconds
        assert point.cost is None
    assert (curve.name, curve.failed, curve.classes) == ("tiny", (), data.task.classes)
    assert curve.chance == pytest.approx(1 / 3)


def test_a_point_is_the_adapters_own_evaluation(curve: LearningCurve, folder: Path, data: Dataset) -> None:
    for point in curve.points:
        (path,) = folder.glob(f"trainings/{point.size}-{point.seed}-*/test.parquet")
        evaluation = Evaluation.load(path)
        assert evaluation.name == "tiny-lora"
        assert evaluation.example_ids == list(data.test.ids)
        again = CurvePoint.of(evaluation, size=point.size, seed=point.seed)
        assert (again.rightness, again.test_set) == (point.rightness, point.test_set)


def test_the_curve_and_its_points_are_on_the_disk_and_the_adapters_are_gone(curve: LearningCurve, folder: Path) -> None:
    assert LearningCurve.load(folder / "curve.json") == curve
    assert len(list(folder.glob("points/*.json"))) == 4
    written = json.loads(next(folder.glob("points/12-1-*.json")).read_text(encoding="utf-8"))
    assert written["settings"]["config"]["seed"] == 1
    assert list(folder.rglob("*.safetensors")) == []


def test_the_base_answers_as_before(trainer: LoRATrainer, data: Dataset, tmp_path: Path) -> None:
    before = Evaluator(data.test).run(trainer.base).table["scores"]
    curve = LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path, keep_adapters=True)
    assert Evaluator(data.test).run(trainer.base).table["scores"].equals(before)
    (kept,) = tmp_path.glob("trainings/6-0-*/adapter")
    adapter = Adapter.load(kept, base=trainer.base)
    evaluation = Evaluator(data.test).run(adapter)
    assert CurvePoint.of(evaluation, size=6, seed=0).rightness == curve.points[0].rightness
    assert not evaluation.table["scores"].equals(before)


def test_what_is_finished_is_not_trained_again(
    curve: LearningCurve, trainer: LoRATrainer, data: Dataset, folder: Path, untrained: list[int]
) -> None:
    assert LearningCurve.run(trainer, data, SIZES, SEEDS, run_dir=folder) == curve
    assert untrained == []
    fewer = LearningCurve.run(trainer, data, [12], SEEDS, run_dir=folder)
    assert fewer.points == curve.points[2:]
    curve.save(folder / "curve.json")


def test_points_of_other_settings_or_images_stay_apart(
    trainer: LoRATrainer,
    data: Dataset,
    tmp_path: Path,
    untrained: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path)
    other = trainer.with_config(CONFIG.model_copy(update={"r": 4}))
    LearningCurve.run(other, data, [6], [0], run_dir=tmp_path)
    assert "holds 1 points of other settings or images" in capsys.readouterr().err
    # The same ids and labels, but one of the test photos is another one.
    photo = data.test[0]
    changed = [example for example in data if example.id != photo.id]
    changed.append(photo.model_copy(update={"image": tiny_dataset(12, seed=1).by_id(photo.id).image}))
    LearningCurve.run(trainer, Dataset(changed, task=data.task, splits=data.splits), [6], [0], run_dir=tmp_path)
    assert untrained == [6, 6, 6]
    assert len(list(tmp_path.glob("points/*.json"))) == 3
    # What does not change what is trained does not train it again.
    how = trainer.with_config(CONFIG.model_copy(update={"micro_batch_size": 2}))
    LearningCurve.run(how, data, [6], [0], run_dir=tmp_path)
    assert untrained == [6, 6, 6]


SCRIPT = """
import sys
from pathlib import Path
from tests.experiments.test_running import CONFIG, SEEDS, SIZES
from vlm_tune.experiments import LearningCurve
from vlm_tune.testing import tiny_dataset
from vlm_tune.training import LoRATrainer
from vlm_tune.vlm import VLM

trainer = LoRATrainer(VLM(sys.argv[1], name="tiny"), CONFIG)
LearningCurve.run(trainer, tiny_dataset(12), SIZES, SEEDS, run_dir=sys.argv[2])
"""


def test_a_killed_run_goes_on_and_ends_like_an_unbroken_one(
    curve: LearningCurve, trainer: LoRATrainer, data: Dataset, tmp_path: Path, untrained: list[int]
) -> None:
    process = Child("-c", SCRIPT, trainer.base.folder, tmp_path)
    waited = time.monotonic() + 120
    while not (finished := list(tmp_path.glob("points/*.json"))) and time.monotonic() < waited:
        time.sleep(0.01)
    process.kill()
    ended = process.wait()
    assert ended.status == -signal.SIGKILL, ended.err
    assert 1 <= len(finished) < 4
    written = {path: path.stat().st_mtime_ns for path in finished}
    again = LearningCurve.run(trainer, data, SIZES, SEEDS, run_dir=tmp_path)
    assert [point.rightness for point in again.points] == [point.rightness for point in curve.points]
    assert len(untrained) <= 4 - len(finished)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_an_interrupted_evaluation_goes_on_without_training_again(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path, untrained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    predict = Adapter.predict

    def interrupted(self: Adapter, examples: Iterable[Example], task: Any) -> Iterator[Any]:
        for prediction in predict(self, list(examples), task):
            if len(asked) == 5:
                asked.append("interrupted")
                raise KeyboardInterrupt
            asked.append(prediction.example_id)
            yield prediction

    monkeypatch.setattr(Adapter, "predict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path)
    (weights,) = tmp_path.rglob("adapter_model.safetensors")
    written = weights.stat().st_mtime_ns
    monkeypatch.setattr(running.shutil, "rmtree", lambda *_, **__: None)
    LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path)
    assert weights.stat().st_mtime_ns == written
    # Nine test images and six training images, each once.
    assert len(asked) == 1 + 9 + 6
    assert len(set(asked)) == len(asked)


def test_memory_that_runs_out_fails_its_point_and_the_next_call_tries_again(
    trainer: LoRATrainer,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fit = LoRATrainer.fit

    def greedy(self: LoRATrainer, train: Dataset, **others: Any) -> Adapter:
        if len(train) == 12:
            torch.empty(1 << 60, dtype=torch.uint8)
        return fit(self, train, **others)

    with monkeypatch.context() as patched:
        patched.setattr(LoRATrainer, "fit", greedy)
        curve = LearningCurve.run(trainer, data, SIZES, [0], run_dir=tmp_path)
    assert [point.size for point in curve.points] == [6]
    (failure,) = curve.failed
    assert (failure.size, failure.seed) == (12, 0)
    assert failure.error.startswith(
        "cpu ran out of memory with micro_batch_size=4; try TrainConfig(micro_batch_size=2)"
    )
    assert "12 images, seed 0: failed: cpu ran out of memory" in capsys.readouterr().err
    assert LearningCurve.load(tmp_path / "curve.json").failed == curve.failed
    assert "failure" in json.loads(next(tmp_path.glob("points/12-0-*.json")).read_text(encoding="utf-8"))
    curve.show()
    assert "Missing: 12 images, seed 0: failed: cpu ran out of memory" in " ".join(capsys.readouterr().out.split())
    again = LearningCurve.run(trainer, data, SIZES, [0], run_dir=tmp_path)
    assert ([point.size for point in again.points], again.failed) == ([6, 12], ())


def test_a_photo_that_does_not_decode_fails_the_points_that_learn_from_it(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path
) -> None:
    smaller = set(data.train.subset(6, seed=0).ids)
    broken = next(example for example in data.train.subset(12, seed=0) if example.id not in smaller)
    assert isinstance(broken.image, bytes)
    cut = broken.model_copy(update={"image": broken.image[:60]})
    examples = [cut if example.id == broken.id else example for example in data]
    curve = LearningCurve.run(
        trainer, Dataset(examples, task=data.task, splits=data.splits), SIZES, [0], run_dir=tmp_path
    )
    assert [point.size for point in curve.points] == [6]
    assert "cannot read image" in curve.failed[0].error


def test_a_curve_without_a_single_point_is_an_error(trainer: LoRATrainer, data: Dataset, tmp_path: Path) -> None:
    wild = trainer.with_config(CONFIG.model_copy(update={"learning_rate": 1e30, "epochs": 4.0, "warmup_ratio": 0.0}))
    with pytest.raises(TrainingError, match=r"the first of 1: 6 images, seed 0: failed: .*not finite"):
        LearningCurve.run(wild, data, [6], [0], run_dir=tmp_path)


class Backwards:
    """A backend that knows all units beforehand and begins with the last."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def run(
        self, work: Callable[..., Any], units: Iterable[Any], *, heard: Callable[..., bool] | None = None
    ) -> Iterator[Outcome[Any, Any]]:
        for outcome in LocalBackend().run(work, reversed(list(units)), heard=heard):
            self.sizes.append(outcome.unit.size)
            yield outcome


def test_another_backend_gives_the_same_curve(
    curve: LearningCurve, trainer: LoRATrainer, data: Dataset, tmp_path: Path
) -> None:
    backend = Backwards()
    other = LearningCurve.run(trainer, data, SIZES, [0], run_dir=tmp_path, backend=backend)
    assert backend.sizes == [12, 6]
    expected = [point for point in curve.points if point.seed == 0]
    assert [point.rightness for point in other.points] == [point.rightness for point in expected]


def test_each_point_is_told_with_its_numbers(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    card = card_of("H200")
    assert card is not None
    rent = gpu_price_of("H200", on=date.today())
    monkeypatch.setattr(noted, "this_device", lambda kind: device_of(card, rent))
    curve = LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path)
    (point,) = curve.points
    assert rent is not None
    assert point.cost is not None
    assert point.cost.usd == pytest.approx(point.seconds * rent.usd_per_hour / 3600)
    assert rent.provenance in point.cost.basis
    told = " ".join(capsys.readouterr().err.split())
    assert f"6 images, seed 0: {point.accuracy.percent()} of 9 test images" in told
    assert f"of 6 training images, {point.seconds:.3g} s, {point.cost}" in told


def test_the_work_travels_without_weights_and_means_the_same_there(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path
) -> None:
    trainer.base.load()
    work = running.Curve(trainer, data.train, data.test, None, tmp_path, keep_adapters=False)
    sent = pickle.dumps((work, work.unit(6, 0)))
    assert len(sent) < 200_000
    there, unit = pickle.loads(sent)  # noqa: S301 (its own)
    assert there.unit(6, 0) == unit == work.unit(6, 0)
    assert work.unit(6, 1) != unit


@pytest.mark.parametrize(
    ("sizes", "seeds", "words"),
    [
        ([6, 28], [0], r"cannot train on 28 images, for data.train has 27"),
        ([2], [0], r"2 training images \(seed 0\) do not show all 3 classes: .* at least 3"),
        ([6, 6], [0], r"sizes holds \[6\] twice"),
        ([6], [1, 0, 1], r"seeds holds \[1\] twice"),
        ([], [0], "sizes are whole numbers of at least 1"),
        ([6], [], "seeds are whole numbers of at least 0"),
        ([0], [0], r"sizes are whole numbers of at least 1, not \[0\]"),
        ([6.5], [0], r"not \[6.5\]"),
        ([6], [-1], r"seeds are whole numbers of at least 0, not \[-1\]"),
    ],
)
def test_sizes_and_seeds_that_make_no_curve_are_refused(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path, sizes: list[int], seeds: list[int], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        LearningCurve.run(trainer, data, sizes, seeds, run_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_without_a_test_or_training_split_are_refused(trainer: LoRATrainer, data: Dataset, tmp_path: Path) -> None:
    for part, name in ((data.train, "test"), (data.test, "train")):
        with pytest.raises(SplitError, match=f"no {name} split"):
            LearningCurve.run(trainer, part, [6], [0], run_dir=tmp_path)


def test_settings_that_choose_without_validation_are_refused_before_anything_is_trained(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path, untrained: list[int]
) -> None:
    choosing = trainer.with_config(CONFIG.model_copy(update={"keep": "best"}))
    with pytest.raises(TrainingError, match="keep='best'"):
        LearningCurve.run(choosing, data, [6], [0], run_dir=tmp_path)
    assert untrained == []


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_trained(
    trainer: LoRATrainer, data: Dataset, tmp_path: Path, untrained: list[int]
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write"):
        LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path / "file" / "curve")
    assert untrained == []


@pytest.mark.parametrize("content", ["[]", "{}", '{"kind": "curve point"}', '{"kind": "curve point", "point": {}}'])
def test_what_is_no_point_is_refused(
    curve: LearningCurve, trainer: LoRATrainer, data: Dataset, folder: Path, tmp_path: Path, content: str
) -> None:
    name = next(folder.glob("points/6-0-*.json")).name
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / name).write_text(content, encoding="utf-8")
    with pytest.raises(StorageError, match="holds something else than a curve point; move it away"):
        LearningCurve.run(trainer, data, [6], [0], run_dir=tmp_path)


def test_a_point_on_other_test_images_than_most_has_failed() -> None:
    points = [
        CurvePoint(size=size, seed=0, right=40, n_test=n_test, test_set=test_set)
        for size, n_test, test_set in ((25, 98, "all"), (50, 97, "one less"), (100, 98, "all"))
    ]
    kept, failed = running.of_one_test_set(points)
    assert [point.size for point in kept] == [25, 100]
    assert [point.size for point in failed] == [50]
    assert "answered 97 test images and not the 98" in failed[0].error
    assert running.of_one_test_set([]) == ([], [])
