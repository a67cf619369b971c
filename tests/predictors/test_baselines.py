"""Guesses are reproducible, do not depend on order, and know their own probabilities."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest

from vlm_tune.data import Dataset
from vlm_tune.predictors import Baseline, Predictor
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.testing import tiny_dataset

TASK = Task(prompt="Which one?", classes=("crack", "dent", "scratch"))


def photos(labels: str) -> list[Example]:
    names = dict(zip("cds", TASK.classes, strict=True))
    return [Example(id=f"{i}.jpg", image=f"{i}".encode(), label=names[x]) for i, x in enumerate(labels)]


def answers(baseline: Baseline, examples: list[Example]) -> dict[str, str | None]:
    return {answer.example_id: answer.label for answer in baseline.predict(examples, TASK)}


def test_baselines_are_predictors() -> None:
    assert isinstance(Baseline.random(), Predictor)
    assert isinstance(Baseline.majority(tiny_dataset(4).train), Predictor)


def test_a_guess_depends_on_seed_and_image_alone() -> None:
    examples = photos("cds" * 40)
    first = answers(Baseline.random(0), examples)
    assert answers(Baseline.random(0), examples[::-1]) == first
    assert answers(Baseline.random(1), examples) != first
    renamed = [example.model_copy(update={"id": f"other {example.id}"}) for example in examples]
    assert list(answers(Baseline.random(0), renamed).values()) == list(first.values())


def test_guesses_are_spread_evenly() -> None:
    counts = Counter(answers(Baseline.random(3), photos("c" * 3000)).values())
    assert set(counts) == set(TASK.classes)
    assert all(900 < count < 1100 for count in counts.values())


def test_seeds_have_fingerprints_of_their_own() -> None:
    assert Baseline.random(0).fingerprint == Baseline.random(0).fingerprint != Baseline.random(1).fingerprint


def test_the_majority_answers_the_commonest_class_with_smoothed_shares() -> None:
    train = Dataset(photos("ccdddd"), task=TASK)
    [answer] = Baseline.majority(train).predict(photos("s"), TASK)
    assert answer.label == "dent"
    assert answer.scores == pytest.approx(
        {"crack": math.log(3 / 9), "dent": math.log(5 / 9), "scratch": math.log(1 / 9)}
    )


def test_scores_are_probabilities() -> None:
    for baseline in (Baseline.random(0), Baseline.majority(tiny_dataset(4).train)):
        [answer] = baseline.predict(photos("c"), TASK)
        assert answer.scores is not None
        assert sum(map(math.exp, answer.scores.values())) == pytest.approx(1)


def test_a_tie_goes_to_the_first_class_of_the_task() -> None:
    train = Dataset(photos("ssdd"), task=TASK)
    assert answers(Baseline.majority(train), photos("c")) == {"0.jpg": "dent"}


def test_a_missing_image_fails_alone() -> None:
    gone = Example(id="gone.jpg", image=Path("/nowhere/gone.jpg"), label="dent")
    failed, answered = Baseline.random().predict([gone, *photos("c")], TASK)
    assert (failed.outcome, answered.outcome) == ("failed", "answered")
    assert "gone.jpg" in str(failed.error)


SEVERAL = TASK.model_copy(update={"multi_label": True})


def damaged(*labels: str) -> list[Example]:
    return [Example(id=f"{n}.jpg", image=f"{n}".encode(), label=label) for n, label in enumerate(labels)]


def test_a_guess_at_several_classes_is_any_list_of_them() -> None:
    found = list(Baseline.random(3).predict(photos("c" * 4000), SEVERAL))
    counts = Counter(answer.label for answer in found)
    assert set(counts) == set(SEVERAL.answers)
    assert all(400 < count < 600 for count in counts.values())
    assert found[0].scores == pytest.approx(dict.fromkeys(TASK.classes, math.log(0.5)))
    many = SEVERAL.model_copy(update={"classes": tuple(f"class {n}" for n in range(70))})
    assert all(many.is_answer(answer.label or "") for answer in Baseline.random(3).predict(photos("ccc"), many))


def test_the_majority_of_lists_is_a_list_and_every_class_has_its_share() -> None:
    train = Dataset(damaged("crack, dent", "crack, dent", "dent", "none", "scratch"), task=SEVERAL)
    [answer] = Baseline.majority(train).predict(photos("s"), SEVERAL)
    assert answer.label == "crack, dent"
    assert answer.scores == pytest.approx(
        {"crack": math.log(3 / 7), "dent": math.log(4 / 7), "scratch": math.log(2 / 7)}
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (("scratch", "dent", "crack, dent"), "dent"),
        (("dent, scratch", "crack, scratch"), "crack, scratch"),
        (("dent", "none"), "none"),
    ],
)
def test_on_a_tie_the_shortest_and_first_list_is_the_majority(labels: tuple[str, ...], expected: str) -> None:
    train = Dataset(damaged(*labels), task=SEVERAL)
    [answer] = Baseline.majority(train).predict(photos("s"), SEVERAL)
    assert answer.label == expected
