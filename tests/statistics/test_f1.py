"""F1 against scikit-learn, its intervals against an independent bootstrap and against the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import f1_score, precision_recall_fscore_support
from statsmodels.stats.proportion import proportion_confint

from vlm_tune.records import Estimate
from vlm_tune.statistics import F1Scores, f1_scores, wilson

Table = NDArray[np.bool_]

tables = st.integers(1, 40).flatmap(lambda n: st.tuples(arrays(bool, (n, 3)), arrays(bool, (n, 3))))


def draw(rng: np.random.Generator, n: int, *, group_size: int = 1, together: float = 0.7) -> tuple[Table, Table]:
    """Draw truths and answers of 4 classes; on hard photos the mistakes come together."""
    shape = (n // group_size, 4)
    truth = rng.random(shape) < [0.5, 0.3, 0.2, 0.1]
    hard = rng.normal(size=(len(truth), 1))
    truth, hard = np.repeat(truth, group_size, axis=0), np.repeat(hard, group_size, axis=0)
    mistake = together * hard + np.sqrt(1 - together**2) * rng.normal(size=truth.shape) > 1.3
    return truth, truth ^ mistake


def every(scores: F1Scores) -> list[Estimate]:
    return [scores.micro, scores.macro, *(one.f1 for one in scores.per_class)]


@given(tables)
def test_values_are_scikit_learns(drawn: tuple[Table, Table]) -> None:
    truth, answer = drawn
    scores = f1_scores(truth, answer)
    expected = precision_recall_fscore_support(truth, answer, zero_division=0)[:3]
    for one, values in zip(scores.per_class, np.transpose(expected), strict=True):
        for estimate, value in zip((one.precision, one.recall, one.f1), values, strict=True):
            assert estimate.value == pytest.approx(value if estimate.n else 0.5)
    occurring = truth.any(axis=0)
    if occurring.any():
        assert scores.macro.value == pytest.approx(expected[2][occurring].mean())
    if (truth | answer).any():
        assert scores.micro.value == pytest.approx(f1_score(truth, answer, average="micro", zero_division=0))


@given(tables, st.data())
def test_intervals_hold_their_value_and_lie_between_0_and_1(drawn: tuple[Table, Table], data: st.DataObject) -> None:
    groups = data.draw(st.none() | arrays(int, len(drawn[0]), elements=st.integers(0, 5)))
    for one in every(f1_scores(*drawn, groups=groups)):
        assert 0 <= one.low <= one.value <= one.high <= 1
        assert one.high - one.low > 0


@given(tables)
def test_what_is_counted_once_a_photo_has_a_plain_wilson_interval(drawn: tuple[Table, Table]) -> None:
    truth, answer = drawn
    for place, one in enumerate(f1_scores(truth, answer).per_class):
        has, says = truth[:, place], answer[:, place]
        hits = int((has & says).sum())
        assert one.recall == wilson(hits, int(has.sum()))
        assert one.precision == wilson(hits, int(says.sum()))
        either = int((has | says).sum())
        if either:
            low, high = proportion_confint(hits, either, method="wilson")
            assert (one.f1.low, one.f1.high) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)), abs=1e-9)


def test_sparse_tables_orders_and_group_names_change_nothing() -> None:
    rng = np.random.default_rng(0)
    truth, answer = draw(rng, 120, group_size=4)
    groups, order = np.arange(120) // 4, rng.permutation(120)
    expected = f1_scores(truth, answer, groups=groups)
    assert f1_scores(csr_array(truth), csr_array(answer), groups=groups) == expected
    renamed = f1_scores(truth[order], answer[order], groups=(1000 - 7 * groups)[order])
    for one, other in zip(every(renamed), every(expected), strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
    alone = f1_scores(truth, answer, groups=np.arange(120))
    for one, other in zip(every(alone), every(f1_scores(truth, answer)), strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert "clustered by group" in expected.micro.method
    assert "clustered by photo" in f1_scores(truth, answer).micro.method


def test_copies_in_groups_add_nothing() -> None:
    truth, answer = draw(np.random.default_rng(1), 200)
    once = f1_scores(truth, answer)
    copied = f1_scores(truth.repeat(5, axis=0), answer.repeat(5, axis=0), groups=np.arange(200).repeat(5))
    believed = f1_scores(truth.repeat(5, axis=0), answer.repeat(5, axis=0))
    for plain, grouped, naive in zip(every(once), every(copied), every(believed), strict=True):
        assert grouped.high - grouped.low == pytest.approx(plain.high - plain.low, rel=0.06)
        assert naive.high - naive.low < 0.55 * (plain.high - plain.low)


@pytest.mark.parametrize("group_size", [1, 4])
def test_intervals_are_those_of_a_bootstrap(group_size: int) -> None:
    """Far from 0 and 1 a percentile bootstrap of photos or groups, counted by hand, says much the same."""
    rng = np.random.default_rng(2)
    truth, answer = draw(rng, 1200, group_size=group_size)
    groups = None if group_size == 1 else np.arange(1200) // group_size
    blocks = np.arange(1200).reshape(-1, group_size)
    resampled = []
    for _ in range(1500):
        rows = blocks[rng.integers(0, len(blocks), len(blocks))].ravel()
        hits, total = (truth & answer)[rows].sum(0), truth[rows].sum(0) + answer[rows].sum(0)
        by_class = 2 * hits / total
        resampled.append([2 * hits.sum() / total.sum(), by_class.mean(), *by_class])
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    scores = every(f1_scores(truth, answer, groups=groups))
    widths = np.array([one.high - one.low for one in scores])
    np.testing.assert_allclose(widths, high - low, rtol=0.12)
    np.testing.assert_allclose([one.low for one in scores], low, atol=0.2 * widths.max())


@pytest.mark.parametrize(("n", "group_size", "at_least"), [(40, 1, 0.91), (150, 1, 0.92), (160, 4, 0.88)])
def test_intervals_hold_the_truth_as_often_as_they_say(n: int, group_size: int, at_least: float) -> None:
    rng = np.random.default_rng(3)
    expected = np.array([one.value for one in every(f1_scores(*draw(rng, 200_000)))])
    groups = None if group_size == 1 else np.arange(n) // group_size
    held = []
    for _ in range(250):
        scores = every(f1_scores(*draw(rng, n, group_size=group_size), groups=groups))
        held.append([one.low <= value <= one.high for one, value in zip(scores, expected, strict=True)])
    assert (np.mean(held, axis=0) >= at_least).all(), np.mean(held, axis=0)


def test_nothing_to_find_is_nothing_known() -> None:
    scores = f1_scores(np.zeros((5, 2)), np.zeros((5, 2)))
    for one in every(scores):
        assert (one.value, one.low, one.high, one.n) == (0.5, 0, 1, 0)
    named = f1_scores(np.zeros((5, 2)), np.eye(5, 2))
    assert (named.micro.value, named.micro.low, named.micro.n) == (0, 0, 5)
    assert named.macro.n == 0


def test_a_single_cluster_says_hardly_anything() -> None:
    truth, answer = draw(np.random.default_rng(4), 50)
    micro = f1_scores(truth, answer, groups=np.zeros(50)).micro
    assert micro.high - micro.low > 0.75


def test_tables_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"truth is \(2, 2\) and answer \(2, 3\)"):
        f1_scores(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match="2 photos need as many groups"):
        f1_scores(np.ones((2, 2)), np.ones((2, 2)), groups=[0])
