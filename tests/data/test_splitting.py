from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlm_tune.data.splitting import (
    nested_order,
    parse_split,
    split_fractions,
    split_grouped,
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


class TestGrouped:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 15), st.sampled_from("ab")), min_size=10, max_size=150),
        SHARES,
        SEEDS,
    )
    def test_no_group_crosses_and_every_class_is_everywhere(
        self, rows: list[tuple[int, str]], cut: tuple[float, float], seed: int
    ) -> None:
        shares = split_fractions(test=cut[0], validation=cut[1])
        labels = {f"{number}": label for number, (_, label) in enumerate(rows)}
        groups = {f"{number}": f"g{group}" for number, (group, _) in enumerate(rows)}
        try:
            assigned = split_grouped(labels, groups, shares, seed=seed)
        except SplitError:
            homes = {label: {groups[i] for i in labels if labels[i] == label} for label in set(labels.values())}
            assume(min(map(len, homes.values())) >= 2 * len(shares))
            raise
        assert assigned.keys() == labels.keys()
        for group in set(groups.values()):
            assert len({assigned[i] for i in labels if groups[i] == group}) == 1
        for split in shares:
            assert {labels[i] for i in labels if assigned[i] == split} == set(labels.values())

    def test_proportions_hold_as_far_as_groups_allow(self) -> None:
        labels = {f"{n}": "abc"[n % 3] for n in range(600)}
        groups = {f"{n}": f"g{n // 5}" for n in range(600)}
        assigned = split_grouped(labels, groups, split_fractions(test=0.25, validation=0), seed=0)
        tested = Counter(labels[i] for i, split in assigned.items() if split == "test")
        assert all(abs(tested[label] - 50) <= 3 for label in "abc")

    @pytest.mark.parametrize("seed", range(8))
    def test_a_class_in_two_groups_only_is_on_both_sides(self, seed: int) -> None:
        labels = {f"{n}": "rare" if n in (0, 199) else "ab"[n % 2] for n in range(200)}
        groups = {f"{n}": f"g{n // 4}" for n in range(200)}
        assigned = split_grouped(labels, groups, split_fractions(test=0.1, validation=0), seed=seed)
        assert {assigned["0"], assigned["199"]} == {"train", "test"}
        assert abs(Counter(assigned.values())["test"] - 20) <= 4

    def test_one_huge_group_stays_in_training(self) -> None:
        labels = {f"{n}": "ab"[n % 2] for n in range(100)}
        groups = {f"{n}": "huge" if n < 70 else f"g{n // 2}" for n in range(100)}
        assigned = split_grouped(labels, groups, split_fractions(test=0.25, validation=0), seed=1)
        assert assigned["0"] == "train"
        assert 20 <= Counter(assigned.values())["test"] <= 30

    def test_an_example_without_group_stands_alone_even_if_a_group_has_its_name(self) -> None:
        labels = labelled(a=8, b=8)
        groups = {"a/1": "a/0", "b/1": "a/0"}
        assigned = split_grouped(labels, groups, split_fractions(test=0.5, validation=0), seed=0)
        assert assigned["a/1"] == assigned["b/1"]
        assert len({assigned[f"a/{n}"] for n in range(8)}) == 2

    def test_a_class_in_one_group_cannot_be_on_both_sides(self) -> None:
        labels = labelled(a=10, b=10)
        groups = {i: i if label == "a" else "lonely" for i, label in labels.items()}
        with pytest.raises(SplitError, match=r"too few groups of 'b' \(1\)"):
            split_grouped(labels, groups, split_fractions(test=0.25, validation=0), seed=0)

    def test_an_impossible_arrangement_is_named(self) -> None:
        # Two groups hold everything but one class needs a third side.
        labels = {"1": "a", "2": "b", "3": "a", "4": "c", "5": "b", "6": "c"}
        groups = {"1": "x", "2": "x", "3": "y", "4": "y", "5": "z", "6": "z"}
        with pytest.raises(SplitError, match="no arrangement of the 3 groups"):
            split_grouped(labels, groups, split_fractions(test=0.3, validation=0), seed=0)

    def test_seeds_differ_and_repeat(self) -> None:
        labels = {f"{n}": "ab"[n % 2] for n in range(200)}
        groups = {f"{n}": f"g{n // 4}" for n in range(200)}
        shares = split_fractions(test=0.25, validation=0.1)
        splits = [split_grouped(labels, groups, shares, seed=seed) for seed in (0, 0, 1)]
        assert splits[0] == splits[1] != splits[2]


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
