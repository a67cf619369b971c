from __future__ import annotations

from typing import Any

import pytest

from vlm_tune.data.checks import check, require_ids, with_class
from vlm_tune.errors import DataError, SplitError, UnknownLabelError
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="?", classes=("a", "b", "c"))
SEVERAL = Task(prompt="?", classes=("a", "b", "c"), multi_label=True)


def examples(*labels: str) -> list[Example]:
    return [Example(id=f"{n}.jpg", image=b"", label=label) for n, label in enumerate(labels)]


def test_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="at least one"):
        check([], {}, TASK)


def test_duplicate_ids_are_counted() -> None:
    with pytest.raises(DataError, match=r"2 ids occur more than once \(first: '0\.jpg'\)"):
        check([*examples("a", "b", "a"), *examples("a", "b")], {}, TASK)


def test_splits_must_fit() -> None:
    with pytest.raises(DataError, match=r"'1\.png' and 1 more; did you mean '1\.jpg'"):
        check(examples("a", "b"), {"1.png": "train", "9": "test"}, TASK)
    wrong: Any = {"1.jpg": "holdout"}
    with pytest.raises(SplitError, match="'holdout' is not a split"):
        check(examples("a", "b"), wrong, TASK)


@pytest.mark.parametrize("name", ["test", "validation"])
def test_a_judged_class_needs_training_examples(name: Any) -> None:
    with pytest.raises(DataError, match=f"the {name} split has classes that training lacks: 'b', 'c'"):
        check(examples("a", "b", "c"), {"0.jpg": "train", "1.jpg": name, "2.jpg": name}, TASK)


def test_a_multi_label_class_may_be_trained_in_any_company() -> None:
    photos = examples("a, b", "b, c", "a", "none")
    splits: Any = {"0.jpg": "train", "1.jpg": "train", "2.jpg": "test", "3.jpg": "test"}
    check(photos, splits, SEVERAL)
    with pytest.raises(DataError, match="training lacks: 'c'"):
        check(photos, {**splits, "1.jpg": "test"}, SEVERAL)


def test_without_training_nothing_is_lacking() -> None:
    check(examples("a", "b"), {"0.jpg": "test", "1.jpg": "validation"}, TASK)
    check(examples("a", "b"), {}, TASK)


def test_known_ids_pass() -> None:
    require_ids(["x"], known={"x"})


def test_a_label_becomes_its_class() -> None:
    task = Task(prompt="?", classes=("a", "b"), aliases={"a": ("first",)})
    assert with_class(examples("first")[0], task).label == "a"
    assert with_class(examples("a")[0], task, label="b").label == "b"
    same = examples("b")[0]
    assert with_class(same, task) is same
    with pytest.raises(UnknownLabelError, match=r"example '0\.jpg': label 'B '.* did you mean 'b'"):
        with_class(examples("B ")[0], task)
    with pytest.raises(UnknownLabelError, match="label ''"):
        with_class(same, task, label="")
