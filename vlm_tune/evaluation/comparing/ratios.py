"""How much better one system's probabilities are than another's, how many times as fast it is, and as dear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.cost import Cost
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.counting import group_codes
from vlm_tune.evaluation.probabilities import has_probabilities, probabilities
from vlm_tune.records import Estimate
from vlm_tune.statistics import brier, mean, positive_mean, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlm_tune.evaluation.comparison import Comparison
    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["brier_difference", "cost_ratio", "known_cost_ratio", "speed_ratio"]


def brier_difference(candidate: Evaluation, reference: Evaluation, *, level: float = 0.95) -> Estimate | None:
    """Return the candidate's mean Brier score less the reference's: below 0, its probabilities are better.

    Examples that have probabilities from both count; None where there are fewer than two.
    """
    if not (has_probabilities(candidate) and has_probabilities(reference)):
        return None
    scores = [_brier(side) for side in (candidate, reference)]
    ids = [example_id for example_id in scores[0] if example_id in scores[1]]
    places = {example_id: at for at, example_id in enumerate(candidate.example_ids)}
    rows = np.array([places[example_id] for example_id in ids], dtype=np.int64)
    groups = group_codes(candidate.table["group"])
    groups = None if groups is None else groups[rows]
    if len(np.unique(rows if groups is None else groups)) < 2:
        return None
    gaps = [scores[0][example_id] - scores[1][example_id] for example_id in ids]
    return mean(gaps, groups=groups, level=level)


def _brier(evaluation: Evaluation) -> dict[str, float]:
    found = probabilities(evaluation)
    ids = np.array(evaluation.example_ids, dtype=object)[found.rows]
    # The order of the classes does not matter: the score is a sum over them.
    return dict(zip(ids, brier(found.classes, found.truth).tolist(), strict=True))


def speed_ratio(candidate: Evaluation, reference: Evaluation, *, level: float = 0.95) -> Estimate | None:
    """Return how many times as fast the candidate answers: the reference's mean seconds over the candidate's.

    Answers of one batch were given the same time and count as one observation. None where a side was not timed, or
    in fewer than two batches.
    """
    sides = [_positive(side, "latency_s") for side in (reference, candidate)]
    if any(len(np.unique(seconds)) < 2 for seconds in sides):
        return None
    return ratio(*(positive_mean(seconds, groups=_same(seconds), level=level) for seconds in sides))


def cost_ratio(candidate: Evaluation | Cost, reference: Evaluation | Cost, *, level: float = 0.95) -> Estimate:
    """Return how many times as dear an image is with the candidate; see `Comparison.cost_ratio`.

    Raises:
        EvaluationError: What an image costs is not known, or is nothing.
    """
    sides = [_cost(side, level) for side in (candidate, reference)]
    try:
        return ratio(*sides)
    except ValueError as error:
        raise EvaluationError(
            f"a ratio of costs needs two costs whose intervals lie above zero, not {sides[0]} and {sides[1]}"
        ) from error


def known_cost_ratio(comparison: Comparison) -> Estimate | None:
    """Return `Comparison.cost_ratio`; None where what an image costs is not known of both."""
    try:
        return comparison.cost_ratio()
    except EvaluationError:
        return None


def _cost(side: Evaluation | Cost, level: float) -> Estimate:
    if isinstance(side, Cost):
        return Estimate(value=side.usd, low=side.low, high=side.high, n=side.n, method=side.basis)
    dollars = _positive(side, "cost_usd")
    if len(dollars) < 2:
        raise EvaluationError(
            f"{side.name}: what an image costs was not measured; pass a Cost: CostModel.of_gpu(...) for a model on a "
            "rented GPU, CostModel.of_api(..., price=...) or Cost.exact(dollars, basis=...)"
        )
    return positive_mean(dollars, level=level)


def _positive(evaluation: Evaluation, column: str) -> NDArray[np.float64]:
    values = evaluation.table[column].drop_null().to_numpy().astype(float)
    positive: NDArray[np.float64] = values[values > 0]
    return positive


def _same(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
