from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_tune.data.iterative import nested_iterative, split_iterative
from vlm_tune.data.splitting import split_fractions
from vlm_tune.errors import SplitError

ROWS = st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=30, max_size=150)
SHARES = st.sampled_from([(0.25, 0.0), (0.2, 0.1), (0.5, 0.25), (0.0, 0.3)])
SEEDS = st.integers(0, 5)


def numbered(rows: list[set[str]]) -> dict[str, set[str]]:
    return {f"{number}": members for number, members in enumerate(rows)}


def every(*, count: int, **steps: int) -> dict[str, set[str]]:
    """Rows of which every so many have a label; `d` is the label of the rest."""
    return numbered([{label for label, step in steps.items() if n % step == 0} or {"d"} for n in range(count)])


@settings(max_examples=60)
@given(ROWS, SHARES, SEEDS)
def test_every_class_is_everywhere_and_near_its_share(
    rows: list[set[str]], cut: tuple[float, float], seed: int
) -> None:
    # Enough of each class, so that no split can lack one.
    labels = numbered(rows + [{label} for label in "abcd"] * 4)
    shares = split_fractions(test=cut[0], validation=cut[1])
    assigned = split_iterative(labels, shares, seed=seed)
    assert assigned.keys() == labels.keys()
    for name, share in shares.items():
        if name != "train":
            assert sum(split == name for split in assigned.values()) == round(len(labels) * share)
    counts = Counter((label, assigned[example_id]) for example_id, members in labels.items() for label in members)
    for label in "abcd":
        total = sum(counts[label, name] for name in shares)
        for name, share in shares.items():
            assert counts[label, name] >= 1
            assert abs(counts[label, name] - total * share) <= 4


def test_it_is_better_than_chance() -> None:
    labels = numbered(
        [{label for label, step in (("a", 11), ("b", 5), ("c", 2)) if n % step == 0} or {"d"} for n in range(500)]
    )
    share = {"train": 0.75, "test": 0.25}
    assigned = split_iterative(labels, share, seed=0)
    counts = Counter((label, assigned[example_id]) for example_id, members in labels.items() for label in members)
    for label in "abcd":
        assert abs(counts[label, "test"] - (counts[label, "test"] + counts[label, "train"]) / 4) <= 1


def test_the_order_of_the_examples_does_not_matter_and_the_seed_does() -> None:
    labels = numbered([{"a"}, {"a", "b"}, {"b"}, {"c"}, {"a", "c"}] * 12)
    backwards = dict(reversed(labels.items()))
    shares = split_fractions(test=0.25, validation=0.1)
    assert split_iterative(labels, shares, seed=3) == split_iterative(backwards, shares, seed=3)
    assert nested_iterative(labels, seed=3) == nested_iterative(backwards, seed=3)
    assert len({frozenset(split_iterative(labels, shares, seed=seed).items()) for seed in range(5)}) == 5


def test_the_same_on_every_machine() -> None:
    labels = numbered([{"a"}, {"a", "b"}, {"b"}] * 4)
    assigned = split_iterative(labels, {"train": 0.75, "test": 0.25}, seed=0)
    assert sorted(example_id for example_id, split in assigned.items() if split == "test") == ["1", "11", "6"]


def test_a_rare_class_is_on_both_sides() -> None:
    labels = numbered([{"rare", "a"}, {"rare", "b"}, *([{"a"}, {"b"}, {"a", "b"}] * 30)])
    for seed in range(5):
        assigned = split_iterative(labels, {"train": 0.9, "test": 0.1}, seed=seed)
        assert {assigned["0"], assigned["1"]} == {"train", "test"}


def test_a_class_too_small_is_named() -> None:
    with pytest.raises(SplitError, match=r"'b' \(1\)"):
        split_iterative(numbered([{"a"}, {"a", "b"}, {"a"}]), {"train": 0.75, "test": 0.25}, seed=0)


def test_classes_that_cannot_be_parted_are_named() -> None:
    # Each of the three classes has two photos, and every photo shows two classes: one side will lack one.
    labels = numbered([{"a", "b"}, {"b", "c"}, {"a", "c"}])
    with pytest.raises(SplitError, match=r"no photo of class '.' can go to"):
        split_iterative(labels, {"train": 0.5, "test": 0.5}, seed=0)


@settings(max_examples=60)
@given(ROWS, SEEDS, st.integers(4, 150))
def test_every_beginning_shows_every_class_near_its_share(rows: list[set[str]], seed: int, length: int) -> None:
    labels = numbered(rows)
    order = nested_iterative(labels, seed=seed)
    assert sorted(order) == sorted(labels)
    start = Counter(label for example_id in order[:length] for label in labels[example_id])
    whole = Counter(label for members in rows for label in members)
    assert start.keys() == whole.keys()
    taken = min(length, len(rows)) / len(rows)
    for label, total in whole.items():
        assert abs(start[label] - taken * total) <= 12


def test_the_front_is_stratified_closely() -> None:
    labels = numbered(
        [{label for label, step in (("a", 9), ("b", 4), ("c", 2)) if n % step == 0} or {"d"} for n in range(800)]
    )
    start = Counter(label for example_id in nested_iterative(labels, seed=0)[:200] for label in labels[example_id])
    whole = Counter(label for members in labels.values() for label in members)
    assert all(abs(start[label] - whole[label] / 4) <= 4 for label in "abcd")
