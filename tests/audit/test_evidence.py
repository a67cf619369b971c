"""Who is one unit, what copies are known, and that a wrong label misleads less the second time."""

from __future__ import annotations

import numpy as np

from tests.audit.conftest import TASK, Planted
from vlm_tune.audit.evidence import Photos, copies_of, weigh
from vlm_tune.leakage import LeakageChecker, find_copies
from vlm_tune.records import Example
from vlm_tune.testing import tiny_dataset


def photos(*groups: str | None) -> list[Example]:
    return [Example(id=f"{at}", image=b"", label="dent", group=group) for at, group in enumerate(groups)]


def test_copies_and_groups_are_one_unit() -> None:
    found = Photos(photos("a", None, "a", None, None), TASK, {"2": ("3",), "3": ("2",)})
    assert found.units.tolist() == [0, 1, 0, 0, 2]
    assert Photos(photos(None, None), TASK, {"0": ("gone",)}).units.tolist() == [0, 1]


def test_copies_are_those_that_the_pixels_prove() -> None:
    data = tiny_dataset(8)
    twin = Example(id="twin", image=data.train[0].image, label=data.train[0].label)
    both = [*data, twin]
    assert copies_of(None) == {}
    assert copies_of(find_copies(both))["twin"] == (data.train[0].id,)
    split = type(data)(both, task=data.task, splits={**data.splits, "twin": "test"})
    assert copies_of(LeakageChecker().check(split))["twin"] == (data.train[0].id,)


def test_only_labels_of_copies_that_differ_are_further_witnesses() -> None:
    examples = [
        Example(id=name, image=b"", label=label) for name, label in (("a", "dent"), ("b", "dent"), ("c", "crack"))
    ]
    group = {"a": ("b", "c"), "b": ("a", "c"), "c": ("a", "b")}
    copied = Photos(examples, TASK, group).copied(0)
    crack, dent = TASK.classes.index("crack"), TASK.classes.index("dent")
    assert np.argwhere(copied).tolist() == [[0, crack], [1, crack], [2, dent]]


def test_without_embeddings_the_systems_alone_are_heard(planted: Planted) -> None:
    system = planted.system("a", errors=3, seed=0)
    evidence = weigh(Photos(planted.data.examples, TASK, {}), [system], vectors=None, folds=0, trained_by=None)
    found = list(evidence.suspects())
    asked = {one.example_id for one in found if one.answers}
    assert asked == set(planted.data.test.ids)
    # Of photos that nobody looked at only the rate of errors is known.
    assert len({round(one.log_odds, 6) for one in found if not one.answers}) <= 3
