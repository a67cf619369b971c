from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from vlm_tune.data.dealing import split_grouped
from vlm_tune.data.splitting import split_fractions
from vlm_tune.errors import SplitError

SHARES = st.sampled_from([(0.25, 0.0), (0.2, 0.1), (0.5, 0.25), (0.05, 0.0), (0.0, 0.3), (0.1, 0.8)])
SEEDS = st.integers(0, 5)


def labelled(**sizes: int) -> dict[str, str]:
    return {f"{label}/{number}": label for label, size in sizes.items() for number in range(size)}


def one_each(labels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {example_id: (label,) for example_id, label in labels.items()}


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
            assigned = split_grouped(one_each(labels), groups, shares, seed=seed)
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
        assigned = split_grouped(one_each(labels), groups, split_fractions(test=0.25, validation=0), seed=0)
        tested = Counter(labels[i] for i, split in assigned.items() if split == "test")
        assert all(abs(tested[label] - 50) <= 3 for label in "abc")

    @pytest.mark.parametrize("seed", range(8))
    def test_a_class_in_two_groups_only_is_on_both_sides(self, seed: int) -> None:
        labels = {f"{n}": "rare" if n in (0, 199) else "ab"[n % 2] for n in range(200)}
        groups = {f"{n}": f"g{n // 4}" for n in range(200)}
        assigned = split_grouped(one_each(labels), groups, split_fractions(test=0.1, validation=0), seed=seed)
        assert {assigned["0"], assigned["199"]} == {"train", "test"}
        assert abs(Counter(assigned.values())["test"] - 20) <= 4

    def test_one_huge_group_stays_in_training(self) -> None:
        labels = {f"{n}": "ab"[n % 2] for n in range(100)}
        groups = {f"{n}": "huge" if n < 70 else f"g{n // 2}" for n in range(100)}
        assigned = split_grouped(one_each(labels), groups, split_fractions(test=0.25, validation=0), seed=1)
        assert assigned["0"] == "train"
        assert 20 <= Counter(assigned.values())["test"] <= 30

    def test_an_example_without_group_stands_alone_even_if_a_group_has_its_name(self) -> None:
        labels = labelled(a=8, b=8)
        groups = {"a/1": "a/0", "b/1": "a/0"}
        assigned = split_grouped(one_each(labels), groups, split_fractions(test=0.5, validation=0), seed=0)
        assert assigned["a/1"] == assigned["b/1"]
        assert len({assigned[f"a/{n}"] for n in range(8)}) == 2

    def test_a_class_in_one_group_cannot_be_on_both_sides(self) -> None:
        labels = labelled(a=10, b=10)
        groups = {i: i if label == "a" else "lonely" for i, label in labels.items()}
        with pytest.raises(SplitError, match=r"too few groups of 'b' \(1\)"):
            split_grouped(one_each(labels), groups, split_fractions(test=0.25, validation=0), seed=0)

    def test_an_impossible_arrangement_is_named(self) -> None:
        # Two groups hold everything but one class needs a third side.
        labels = {"1": "a", "2": "b", "3": "a", "4": "c", "5": "b", "6": "c"}
        groups = {"1": "x", "2": "x", "3": "y", "4": "y", "5": "z", "6": "z"}
        with pytest.raises(SplitError, match="no arrangement of the 3 groups"):
            split_grouped(one_each(labels), groups, split_fractions(test=0.3, validation=0), seed=0)

    def test_seeds_differ_and_repeat(self) -> None:
        labels = {f"{n}": "ab"[n % 2] for n in range(200)}
        groups = {f"{n}": f"g{n // 4}" for n in range(200)}
        shares = split_fractions(test=0.25, validation=0.1)
        splits = [split_grouped(one_each(labels), groups, shares, seed=seed) for seed in (0, 0, 1)]
        assert splits[0] == splits[1] != splits[2]


def test_photos_of_several_classes_in_groups() -> None:
    labels = {f"{n}": {"a", "b"} if n % 4 == 0 else {"abc"[n % 3]} for n in range(400)}
    groups = {f"{n}": f"g{n // 5}" for n in range(400)}
    assigned = split_grouped(labels, groups, split_fractions(test=0.25, validation=0), seed=0)
    for number in range(0, 400, 5):
        assert len({assigned[f"{n}"] for n in range(number, number + 5)}) == 1
    for label in "abc":
        holders = [example_id for example_id, members in labels.items() if label in members]
        tested = sum(assigned[example_id] == "test" for example_id in holders)
        assert abs(tested - len(holders) / 4) <= 4
