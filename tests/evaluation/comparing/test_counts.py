"""Counting pairs, with and without groups, and what verdict follows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from vlm_tune.evaluation.comparing.counts import count_pairs, decide, groups_of
from vlm_tune.statistics import mcnemar_by_group, mcnemar_exact, tango, tango_by_group, wilson


def rows(wins: int, losses: int, ties: int) -> list[np.ndarray]:
    return [np.repeat([one, other, True], [wins, losses, ties]) for one, other in ((True, False), (False, True))]


def test_without_groups_it_is_mcnemar_and_tango() -> None:
    found = count_pairs(*rows(10, 4, 84))
    assert (found.wins, found.losses, found.n, found.design_effect) == (10, 4, 98, 1.0)
    assert found.p_value == mcnemar_exact(10, 4)
    assert found.difference == tango(10, 4, 98)
    assert found.candidate == wilson(94, 98)


def test_with_groups_it_is_the_same_by_group() -> None:
    sides, groups = rows(10, 4, 84), np.arange(98) // 2
    found = count_pairs(*sides, groups=groups)
    assert found.p_value == mcnemar_by_group(*sides, groups)
    assert found.difference == tango_by_group(*sides, groups)
    assert found.p_value < found.mid_p_value + 0.5
    assert found.design_effect > 1
    assert found.candidate.method == "Wilson 95%, clustered by group"


def test_no_examples_say_nothing() -> None:
    empty = np.zeros(0, dtype=bool)
    for groups in (None, np.zeros(0, dtype=np.int64)):
        found = count_pairs(empty, empty, groups=groups)
        assert (found.n, found.difference.low, found.difference.high) == (0, -1, 1)


@pytest.mark.parametrize(
    ("p_value", "counts", "verdict"),
    [
        (0.04, (10, 2, 100), "better"),
        (0.04, (2, 10, 100), "worse"),
        (0.05, (10, 2, 100), "not_established"),
        (0.8, (2, 2, 1000), "equivalent"),
    ],
)
def test_a_verdict_follows(p_value: float, counts: tuple[int, int, int], verdict: str) -> None:
    assert decide(p_value, tango(*counts), alpha=0.05, margin=0.03) == verdict


def test_groups_of_one_are_no_groups() -> None:
    def column(*names: str | None) -> pa.ChunkedArray:
        return pa.chunked_array([pa.array(names, type=pa.string())])

    assert groups_of(column(None, None)) is None
    assert groups_of(column("a", "b", None)) is None
    found = groups_of(column("a", None, "a", None))
    assert found is not None
    assert found[0] == found[2]
    assert len(set(found)) == 3
