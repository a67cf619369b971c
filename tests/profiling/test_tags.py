from __future__ import annotations

from dataclasses import replace

import pytest

from vlm_tune.profiling import TAGS, CopyGroup
from vlm_tune.profiling.measures import Measures
from vlm_tune.profiling.tags import tags_of
from vlm_tune.records import Example

PLAIN = Measures(
    width=640, height=480, format="JPEG", num_bytes=9, brightness=0.5, darkest=0.1, brightest=0.9, contrast=0.2,
    sharpness=1.4, detail=0.8,
)  # fmt: skip


def example(name: str, **metadata: object) -> Example:
    return Example(id=name, image=b"", label="crack", metadata=metadata)


def tags(**changes: object) -> set[str]:
    found = tags_of([example("a")], {"a": replace(PLAIN, **changes)}, ())
    assert list(found) == list(TAGS)
    return {tag for tag, ids in found.items() if ids}


@pytest.mark.parametrize(
    ("changes", "tag"),
    [
        ({"brightest": 0.29}, "dark"),
        ({"darkest": 0.86}, "bright"),
        ({"sharpness": 0.74}, "blurry"),
        ({"detail": 0.009}, "empty"),
        ({"width": 1441}, "odd_shape"),
        ({"height": 1921}, "odd_shape"),
    ],
)
def test_a_photo_beyond_a_limit_gets_that_tag_only(changes: dict[str, object], tag: str) -> None:
    assert tags(**changes) == {tag}


def test_a_photo_at_the_limits_gets_none() -> None:
    assert tags() == set()
    assert tags(brightest=0.30, darkest=0.0, sharpness=0.75, detail=0.01, width=1440) == set()


def test_an_empty_photo_is_not_blurry_as_well() -> None:
    assert tags(detail=0.0, sharpness=0.0) == {"empty"}


def test_what_was_not_measured_is_unreadable() -> None:
    found = tags_of([example("a"), example("b")], {"b": PLAIN}, ())
    assert found["unreadable"] == ("a",)


def test_the_source_says_what_is_ambiguous() -> None:
    said = [True, "true", " Yes", 1, "1", False, "false", "", None, 0]
    examples = [example(f"{n}", ambiguous=value) for n, value in enumerate(said)]
    assert tags_of([*examples, example("x")], {}, ())["ambiguous"] == ("0", "1", "2", "3", "4")


def test_copies_are_duplicates_inside_a_split_and_conflicts_anywhere() -> None:
    examples = [example(name) for name in "abcdefg"]
    copies = [
        CopyGroup(kind="identical", ids=("g", "a"), labels=("crack", "dent"), splits=("train", "test")),
        CopyGroup(kind="near_copy", ids=("b", "c", "d"), labels=("crack",) * 3, splits=("test", "train", "train")),
        CopyGroup(kind="identical", ids=("e", "f"), labels=("crack", "dent"), splits=(None, None)),
    ]
    found = tags_of(examples, dict.fromkeys("abcdefg", PLAIN), copies)
    assert found["duplicate"] == ("c", "d", "e", "f")
    assert found["conflict"] == ("a", "e", "f", "g")
    assert found["leak"] == ("a", "b", "c", "d", "g")
    assert [group.is_leak for group in copies] == [True, True, False]
