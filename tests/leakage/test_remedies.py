"""Remedies move or drop what they say, whole groups at a time, and say beforehand what would be left."""

from __future__ import annotations

import pytest

from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.errors import DataError, SplitError
from vlm_tune.leakage import LeakageReport, LeakPair
from vlm_tune.records import Example
from vlm_tune.task import Task

_OF: dict[str, SplitName] = {"r": "train", "v": "validation", "t": "test"}
NAMES = [f"{split}{at}" for split, count in (("r", 9), ("v", 4), ("t", 8)) for at in range(1, count + 1)]


def link(
    a: str, b: str, *, group: str | None = None, copies: tuple[int, int] = (1, 1), scene: bool = False
) -> LeakPair:
    return LeakPair(
        a_id=a,
        a_split=_OF[a[0]],
        a_label=label(a),
        b_id=b,
        b_split=_OF[b[0]],
        b_label=label(b),
        tier="same_scene" if group or scene else "near_copy",
        similarity=0.9,
        rule="group" if group else "pixels",
        copies=copies,
        evidence={"group": group} if group else {},
    )


def label(name: str) -> str:
    return "ab"[int(name[1]) % 2]


@pytest.fixture
def data() -> Dataset:
    examples = [Example(id=name, image=b"", label=label(name)) for name in NAMES]
    return Dataset(examples, task=Task(prompt="?", classes=("a", "b")), splits={name: _OF[name[0]] for name in NAMES})


def report(data: Dataset, *pairs: LeakPair, **more: object) -> LeakageReport:
    classes: dict[str, dict[str, int]] = {}
    for example in data:
        of = classes.setdefault(data.splits[example.id], {})
        of[example.label] = of.get(example.label, 0) + 1
    places = {name: (data.splits[name], data.by_id(name).label) for name in data.ids}
    fields = {"cut": None, "cut_reason": "", "null": (), "nearest": (), "num_compared": 0, "num_verified": 0}
    known = {"dataset_fingerprint": data.fingerprint, "embedder": "none", "pairs": pairs}
    return LeakageReport.model_validate({**fields, **known, "classes": classes, "places": places, **more})


def test_a_group_goes_to_training_or_else_to_validation(data: Dataset) -> None:
    resolved = report(data, link("v1", "r1"), link("t1", "v2")).resolve(data)
    assert resolved.split_of("v1") == "train"
    assert resolved.split_of("t1") == "validation"
    assert resolved.split_of("t2") == "test"


def test_a_chain_goes_as_a_whole(data: Dataset) -> None:
    found = report(data, link("v1", "r1"), link("t1", "v1"), within=(link("t2", "t1"), link("t4", "t3")))
    resolved = found.resolve(data, "regroup")
    assert {resolved.split_of(name) for name in ("r1", "v1", "t1", "t2")} == {"train"}
    # Copies of each other that nobody leaked may stay together in the test split.
    assert resolved.split_of("t3") == resolved.split_of("t4") == "test"


def test_dropping_takes_the_side_it_says(data: Dataset) -> None:
    found = report(data, link("t1", "r1"))
    assert "r1" not in found.resolve(data, "drop_train").ids
    assert "t1" not in found.resolve(data, "drop_test").ids


def test_a_pair_stands_for_all_photos_of_equal_pixels(data: Dataset) -> None:
    found = report(data, link("t1", "r1", copies=(2, 2)), identical=(("t1", "t2"), ("r1", "r2")))
    assert found.leaked_test_ids == ("t1", "t2")
    assert set(data.ids) - set(found.resolve(data, "drop_test").ids) == {"t1", "t2"}
    assert set(data.ids) - set(found.resolve(data, "drop_train").ids) == {"r1", "r2"}
    assert {found.resolve(data).split_of(name) for name in ("t1", "t2")} == {"train"}


def test_a_group_key_is_a_leak_and_moves_as_a_whole(data: Dataset) -> None:
    found = report(data, link("t1", "r1", group="part 7", copies=(1, 2)), group_keys={"part 7": ("r1", "r2", "t1")})
    assert found.leaked_test_ids == ("t1",)
    assert found.resolve(data).split_of("t1") == "train"
    assert set(data.ids) - set(found.resolve(data, "drop_train").ids) == {"r1", "r2"}
    table = found.changes("drop_train").set_index("example_id")
    assert table.loc["r2", "explanation"] == "both of group 'part 7': 1 in test, 2 in train"


def test_a_copy_pulls_its_whole_group_along(data: Dataset) -> None:
    found = report(data, link("t1", "r1"), group_keys={"part 7": ("t1", "t2", "t4")})
    assert {found.resolve(data).split_of(name) for name in ("t1", "t2", "t4")} == {"train"}


def test_groups_are_dealt_out_where_training_would_take_most_of_a_split(data: Dataset) -> None:
    pairs = [link(f"t{at}", f"r{at}") for at in range(1, 7)]
    found = report(data, *pairs)
    resolved = found.resolve(data)
    for pair in pairs:
        assert resolved.split_of(pair.a_id) == resolved.split_of(pair.b_id)
    assert (len(resolved.train), len(resolved.test)) == (9, 8)
    assert found.proposals[0].sizes == {"train": 9, "validation": 4, "test": 8}


def test_dealing_keeps_the_classes_too() -> None:
    """Eight pairs of one class and two of the other: neither split ends up with one class."""
    splits: tuple[SplitName, ...] = ("train", "test")
    names = {f"{split}{at}": split for split in splits for at in range(20)}
    examples = [Example(id=name, image=b"", label="a" if int(name[-1]) < 8 else "b") for name in names]
    data = Dataset(examples, task=Task(prompt="?", classes=("a", "b")), splits=names)
    known = {"a_split": "test", "b_split": "train", "tier": "near_copy", "similarity": 0.9}
    pairs = [
        LeakPair(a_id=f"test{at}", b_id=f"train{at}", a_label=one.label, b_label=one.label, **known)
        for at, one in enumerate(examples[:20])
    ]
    resolved = report(data, *pairs).resolve(data)
    assert (len(resolved.train), len(resolved.test)) == (20, 20)
    assert resolved.test.labels.count("b") == resolved.train.labels.count("b") == 4


def test_scenes_are_taken_along_when_asked(data: Dataset) -> None:
    found = report(data, link("t1", "r1", scene=True))
    assert found.leaks == ()
    assert found.resolve(data) is data
    assert found.resolve(data, scenes=True).split_of("t1") == "train"


def test_proposals_come_in_order_and_say_what_is_left(data: Dataset) -> None:
    first, second, third = report(data, link("t1", "r1"), link("t3", "r1")).proposals
    assert [one.strategy for one in (first, second, third)] == ["regroup", "drop_train", "drop_test"]
    assert (first.test_size, second.test_size, third.test_size) == (6, 8, 6)
    assert first.moved == {"train": 2}
    assert first.lost == {"a": 0, "b": 2}
    assert first.sentence == "move 2 to train; leaves train 11, validation 4, test 6 (test: b -2)"
    assert second.sentence == "drop 1 of train; leaves train 8, validation 4, test 8"
    for one in (first, second, third):
        resolved = report(data, link("t1", "r1"), link("t3", "r1")).resolve(data, one.strategy)
        assert one.sizes == {
            "train": len(resolved.train),
            "validation": len(resolved.validation),
            "test": len(resolved.test),
        }


def test_every_change_has_its_evidence(data: Dataset) -> None:
    found = report(data, link("t1", "r1"), within=(link("t2", "t1"),), identical=(("t2", "t4"),))
    table = found.changes().set_index("example_id")
    assert dict(table["to"]) == {"t1": "train", "t2": "train", "t4": "train"}
    assert table.loc["t1", "other_id"] == "r1"
    assert table.loc["t2", "other_id"] == "t1"
    assert table.loc["t4", "tier"] == "near_copy"
    dropped = found.changes("drop_test")
    assert list(dropped["example_id"]) == ["t1"]
    assert dropped["to"].isna().all()


def test_a_split_is_never_emptied(data: Dataset) -> None:
    found = report(data, *(link(f"t{at}", "r1") for at in range(1, 9)))
    with pytest.raises(SplitError, match="'drop_test' would leave the test split empty"):
        found.resolve(data, "drop_test")
    problems = {one.strategy: one.problem for one in found.proposals}
    assert problems["drop_test"] == "the test split would be empty"
    assert "Not possible: the test split would be empty" in found.proposals[2].sentence
    assert problems["drop_train"] == ""


def test_a_class_without_training_examples_is_a_problem_too(data: Dataset) -> None:
    found = report(data, *(link("t1", f"r{at}") for at in (1, 3, 5, 7, 9)))
    (problem,) = (one.problem for one in found.proposals if one.strategy == "drop_train")
    assert problem == "class 'b' would be in test but not in training"
    with pytest.raises(DataError):
        found.resolve(data, "drop_train")


def test_an_unknown_strategy_lists_the_known_ones(data: Dataset) -> None:
    with pytest.raises(DataError, match="regroup, drop_train, drop_test"):
        report(data).resolve(data, "delete")  # type: ignore[arg-type]
