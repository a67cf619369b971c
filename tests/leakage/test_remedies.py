"""Remedies move or drop what they say, and refuse to empty a split."""

from __future__ import annotations

import pytest

from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.errors import DataError, SplitError
from vlm_tune.leakage.remedies import components, resolve
from vlm_tune.records import Example
from vlm_tune.task import Task

_OF: dict[str, SplitName] = {"r": "train", "v": "validation", "t": "test"}
SPLITS = {name: _OF[name[0]] for name in ("r1", "r2", "r3", "v1", "v2", "t1", "t2")}


@pytest.fixture
def data() -> Dataset:
    examples = [Example(id=name, image=b"", label="ab"[i % 2]) for i, name in enumerate(SPLITS)]
    return Dataset(examples, task=Task(prompt="?", classes=("a", "b")), splits=SPLITS)


def test_components_follow_chains() -> None:
    assert components([("a", "b"), ("c", "d"), ("b", "c"), ("e", "f")]) == (("a", "b", "c", "d"), ("e", "f"))
    assert components([]) == ()


def test_a_group_goes_to_training_or_else_to_validation(data: Dataset) -> None:
    leaks = [("v1", "r1"), ("t1", "v2")]
    resolved = resolve(data, leaks=leaks, groups=components(leaks), remedy="regroup")
    assert resolved.split_of("v1") == "train"
    assert resolved.split_of("t1") == "validation"
    assert resolved.split_of("t2") == "test"


def test_a_chain_goes_as_a_whole(data: Dataset) -> None:
    leaks = [("v1", "r1"), ("t1", "v1")]
    resolved = resolve(data, leaks=leaks, groups=components(leaks), remedy="regroup")
    assert {resolved.split_of(name) for name in ("r1", "v1", "t1")} == {"train"}


def test_dropping_takes_the_side_it_says(data: Dataset) -> None:
    leaks = [("t1", "r1")]
    groups = components(leaks)
    assert "r1" not in resolve(data, leaks=leaks, groups=groups, remedy="drop_train").ids
    assert "t1" not in resolve(data, leaks=leaks, groups=groups, remedy="drop_test").ids


def test_a_split_is_never_emptied(data: Dataset) -> None:
    leaks = [("t1", "r1"), ("t2", "r1")]
    for remedy in ("regroup", "drop_test"):
        with pytest.raises(SplitError, match="would leave the test split empty"):
            resolve(data, leaks=leaks, groups=components(leaks), remedy=remedy)  # type: ignore[arg-type]


def test_an_unknown_remedy_lists_the_known_ones(data: Dataset) -> None:
    with pytest.raises(DataError, match="regroup, drop_train, drop_test"):
        resolve(data, leaks=[], groups=[], remedy="delete")  # type: ignore[arg-type]
