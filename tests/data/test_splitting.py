from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune.data.splitting import (
    nested_order,
    parse_split,
    split_fractions,
    split_stratified,
)
from vlm_tune.errors import SplitError


def labelled(**sizes: int) -> dict[str, str]:
    return {f"{label}/{number}": label for label, size in sizes.items() for number in range(size)}


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(3, 60), min_size=1)
SHARES = st.sampled_from([(0.25, 0.0), (0.2, 0.1), (0.5, 0.25), (0.05, 0.0), (0.0, 0.3), (0.1, 0.8)])
SEEDS = st.integers(0, 5)


class TestFractions:
    def test_what_is_left_is_for_training(self) -> None:
        assert split_fractions(test=0.25, validation=0.0) == {"train": 0.75, "test": 0.25}
        assert list(split_fractions(test=0.2, validation=0.1)) == ["train", "validation", "test"]

    @pytest.mark.parametrize("test, validation", [(0, 0), (1, 0), (0.6, 0.5), (-0.1, 0.5), (0.5, -0.1), (25, 0)])
    def test_impossible_shares_are_refused(self, test: float, validation: float) -> None:
        with pytest.raises(SplitError, match=r"less than 1"):
            split_fractions(test=test, validation=validation)

    def test_names_in_any_case(self) -> None:
        names = ["Train", "VAL", "valid", "validation", "Test", " test "]
        assert [parse_split(name) for name in names] == ["train", *["validation"] * 3, *["test"] * 2]
        assert parse_split("crack") is None


class TestStratified:
    @given(SIZES, SHARES, SEEDS)
    def test_every_class_is_cut_in_the_same_proportions(
        self, sizes: dict[str, int], cut: tuple[float, float], seed: int
    ) -> None:
        shares = split_fractions(test=cut[0], validation=cut[1])
        labels = labelled(**sizes)
        assigned = split_stratified(labels, shares, seed=seed)
        assert assigned.keys() == labels.keys()
        counts = Counter((labels[example_id], split) for example_id, split in assigned.items())
        for label, size in sizes.items():
            for split in shares:
                assert counts[label, split] >= 1
                if split != "train" and size * min(shares.values()) >= 1:
                    assert abs(counts[label, split] - size * shares[split]) <= 1

    def test_the_total_is_the_share_of_the_whole(self) -> None:
        assigned = split_stratified(labelled(a=139, b=139, c=139), {"train": 0.75, "test": 0.25}, seed=0)
        assert Counter(assigned.values()) == {"train": 313, "test": 104}

    def test_the_order_of_the_examples_does_not_matter(self) -> None:
        labels = labelled(a=30, b=20)
        backwards = dict(reversed(labels.items()))
        shares = split_fractions(test=0.25, validation=0.1)
        assert split_stratified(labels, shares, seed=3) == split_stratified(backwards, shares, seed=3)

    def test_the_same_on_every_machine(self) -> None:
        assigned = split_stratified(labelled(a=6, b=6), {"train": 0.75, "test": 0.25}, seed=0)
        assert sorted(example_id for example_id, split in assigned.items() if split == "test") == [
            "a/2",
            "a/3",
            "b/0",
        ]

    def test_another_seed_gives_another_split(self) -> None:
        shares = split_fractions(test=0.25, validation=0)
        labels = labelled(a=30, b=20)
        assert len({frozenset(split_stratified(labels, shares, seed=s).items()) for s in range(5)}) == 5

    def test_a_class_too_small_for_every_side_is_named(self) -> None:
        with pytest.raises(SplitError, match=r"'b' \(2\).*at least 3 examples"):
            split_stratified(labelled(a=9, b=2), split_fractions(test=0.2, validation=0.2), seed=0)


class TestNestedOrder:
    @given(SIZES, SEEDS, st.integers(1, 200))
    def test_every_beginning_is_stratified(self, sizes: dict[str, int], seed: int, length: int) -> None:
        labels = labelled(**sizes)
        order = nested_order(labels, seed=seed)
        assert sorted(order) == sorted(labels)
        start = Counter(labels[example_id] for example_id in order[:length])
        taken = min(length, len(labels))
        assert len(start) == min(taken, len(sizes))
        for label, size in sizes.items():
            exact = taken * size / len(labels)
            assert exact - len(sizes) <= start[label] <= exact + len(sizes)
