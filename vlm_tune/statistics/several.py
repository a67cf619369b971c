"""More than two systems, or more than one question: a test of all at once, and p-values that stay honest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["cochran_q", "holm"]

_TURNS = 9_999
_CELLS = 4_000_000


def cochran_q(right: ArrayLike, *, groups: ArrayLike | None = None) -> tuple[float, float]:
    """Return Cochran's Q of k systems on the same n examples, and the p-value that all are equally often right.

    With column sums G_j, row sums L_i and N right answers in all,

        Q = (k - 1) (k sum G_j^2 - N^2) / (k N - sum L_i^2),

    which is chi-squared with k - 1 degrees of freedom. Source: W. G. Cochran, Biometrika 37 (1950), 256-266.

    Photos of one group are not independent, and chi-squared does not hold. The p-value is then that of a
    randomisation test: in 9,999 turns, always the same ones, the systems are shuffled in whole groups, and Q's
    numerator compared.

    Args:
        right: Whether each system is right, n x k of zeros and ones.
        groups: One whole number for each example; examples with the same number belong together.

    Returns:
        Q and p; where all systems agree on every example, 0 and 1.

    Raises:
        ValueError: There are fewer than two systems, or the groups are not n.

    Examples:
        >>> q, p = cochran_q([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0]])
        >>> round(q, 2), round(p, 3)
        (6.0, 0.05)
    """
    import numpy as np
    from scipy.stats import chi2

    table = np.asarray(right, dtype=float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"Cochran's Q needs examples x systems with at least two systems, got {table.shape}")
    systems, columns, rows = table.shape[1], table.sum(axis=0), table.sum(axis=1)
    below = systems * columns.sum() - np.sum(rows**2)
    if below == 0:
        return 0.0, 1.0
    q = float((systems - 1) * (systems * np.sum(columns**2) - columns.sum() ** 2) / below)
    if groups is None:
        return q, float(chi2.sf(q, systems - 1))
    return q, _shuffled(table, groups)


def _shuffled(table: NDArray[np.float64], groups: ArrayLike) -> float:
    """Return the share of turns in which the systems' totals differ as much, or more, after shuffling in groups."""
    import numpy as np

    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    if codes.shape != table.shape[:1]:
        raise ValueError(f"{len(table)} examples need as many groups, got {codes.shape}")
    sums = np.zeros((codes.max() + 1, table.shape[1]))
    np.add.at(sums, codes, table)
    # A group in which all systems have as many right does not change in any turn.
    sums = sums[np.ptp(sums, axis=1) > 0]
    observed = np.sum((sums.sum(axis=0) - sums.sum() / sums.shape[1]) ** 2) if len(sums) else 0.0
    generator = np.random.default_rng(0)
    at_once = max(1, _CELLS // max(1, sums.size))
    as_far = 0
    for start in range(0, _TURNS, at_once):
        turns = min(at_once, _TURNS - start)
        totals = generator.permuted(np.broadcast_to(sums, (turns, *sums.shape)), axis=2).sum(axis=1)
        spread = np.sum((totals - totals.mean(axis=1, keepdims=True)) ** 2, axis=1)
        as_far += int(np.count_nonzero(spread >= observed - 1e-9))
    return (as_far + 1) / (_TURNS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for being several: rejecting those below alpha errs at all with at most alpha.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none is smaller than the one before.
    Source: S. Holm, Scand. J. Stat. 6 (1979), 65-70.

    Raises:
        ValueError: One is not between 0 and 1.

    Examples:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    if not all(0 <= value <= 1 for value in p_values):
        raise ValueError(f"p-values lie between 0 and 1, not {list(p_values)}")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
