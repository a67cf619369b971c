"""The searches: nearest neighbours, all pairs above a threshold, and both in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_tune.leakage.neighbours.engine import Engine, Found, Pairs, engine, prepare
from vlm_tune.leakage.neighbours.ranking import Ranking, Strongest
from vlm_tune.leakage.neighbours.repeats import Repeats

if TYPE_CHECKING:
    import torch

__all__ = ["Scan", "above", "centred", "scan", "top_k"]

Array = NDArray[np.float32]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]
Matrix: TypeAlias = "Array | torch.Tensor"

MAX_PAIRS = 1_000_000


class Scan(NamedTuple):
    """What one pass over all pairs found.

    Attributes:
        nearest: The most similar reference of each query, shape (N,).
        similarities: Its similarity, shape (N,), float64; -inf for a query without any reference.
        pairs: The pairs that reach the threshold, by query and then reference.
        num_above: How many pairs reach it; more than `pairs` has where those are cut short.
    """

    nearest: Indices
    similarities: Scores
    pairs: Pairs
    num_above: int


def centred(rows: Array, mean: Array) -> Array:
    """Subtract a mean vector and bring every row to norm 1.

    Photos of one subject share most of their embedding; what is left after the mean is gone tells them apart.

    Args:
        rows: Embeddings, shape (N, D).
        mean: Mean embedding, shape (D,).
    """
    moved = rows - mean
    return np.asarray(moved / (np.linalg.norm(moved, axis=1, keepdims=True) + 1e-9), np.float32)


def top_k(
    views: Sequence[Matrix], references: Matrix, k: int, *, exclude: Indices | None = None, device: str = "auto"
) -> tuple[Indices, Scores]:
    """Return the k most similar references of each query, best first.

    Args:
        views: Query embeddings of norm 1, one array (N, D) for each view of the same N photos (such as
            mirrored); a pair's similarity is its best view's.
        references: Reference embeddings of norm 1, shape (M, D).
        k: How many; fewer come back where there are fewer references.
        exclude: For each query a reference that does not count, such as itself, or -1; shape (N,). A query
            left with fewer than k references gets similarity -inf in the last columns.
        device: `cpu`, `cuda`, or `auto`: a GPU where there is one and the work is worth it.

    Returns:
        Indices (N, k) into the references and similarities (N, k), float64. Equal similarities keep the order
        of the references.

    Raises:
        EmbeddingError: The embeddings do not fit together, are not finite, or are longer than 1.

    Examples:
        >>> rows = np.eye(3, dtype=np.float32)
        >>> indices, similarities = top_k([rows[:1]], rows, 2)
        >>> indices.tolist(), similarities.tolist()
        ([[0, 1]], [[1.0, 0.0]])
    """
    views, references = prepare(views, references, device)
    repeats = Repeats.of(references)
    machine = engine(views, references[repeats.firsts] if repeats else references)
    ranking = Ranking(len(views[0]), min(k, len(references)), repeats, exclude)
    for block in machine.blocks(k=ranking.depth, threshold=np.inf, later=False):
        for found in block.found:
            ranking.add(machine, found)
        ranking.settle(machine)
    return ranking.indices, ranking.similarities


def above(
    views: Sequence[Matrix], references: Matrix, threshold: float, *, within: bool = False, device: str = "auto"
) -> Iterator[Pairs]:
    """Yield every pair whose similarity reaches a threshold, some at a time.

    Args:
        views: Query embeddings, as for `top_k`.
        references: Reference embeddings of norm 1, shape (M, D).
        threshold: Least cosine similarity.
        within: Queries and references are the same photos in the same order: each pair comes once, as the
            earlier photo's views against the later photo, and no photo with itself. Half the work.
        device: As for `top_k`.

    Yields:
        Query indices, reference indices and similarities, each of shape (P,).

    Raises:
        EmbeddingError: The embeddings do not fit together, are not finite, or are longer than 1.

    Examples:
        >>> rows = centred(np.float32([[1, 0], [1, 0.1], [0, 1]]), np.zeros(2, np.float32))
        >>> [(pairs.queries.tolist(), pairs.references.tolist()) for pairs in above([rows], rows, 0.9, within=True)]
        [([0], [1])]
    """
    views, references = prepare(views, references, device)
    repeats = Repeats.of(references)
    machine = engine(views, references[repeats.firsts] if repeats else references)
    for block in machine.blocks(k=0, threshold=threshold, later=within and not repeats):
        for found in block.found:
            for pairs in repeats.batches(_reaching(machine, found, threshold), later=within):
                if len(pairs.queries):
                    yield pairs


def scan(
    views: Sequence[Matrix],
    references: Matrix,
    threshold: float,
    *,
    within: bool = False,
    max_pairs: int = MAX_PAIRS,
    device: str = "auto",
) -> Scan:
    """Find the nearest reference of each query and all pairs that reach a threshold, in one pass.

    Beside embeddings and result, two cores need some 20 MB for it, and 300 MB where nearly all pairs reach the
    threshold; a GPU needs about 4 GB for a million references. Where references repeat, each distinct one is
    copied once more.

    Args:
        views: Query embeddings, as for `top_k`.
        references: Reference embeddings of norm 1, shape (M, D).
        threshold: Least cosine similarity of a pair.
        within: As for `above`, and no photo is its own nearest.
        max_pairs: Most pairs to keep: where more reach the threshold the most similar stay, all are counted.
        device: As for `top_k`.

    Raises:
        EmbeddingError: The embeddings do not fit together, are not finite, or are longer than 1.

    Examples:
        >>> rows = centred(np.float32([[1, 0], [1, 0.1], [0, 1]]), np.zeros(2, np.float32))
        >>> found = scan([rows], rows, 0.9, within=True)
        >>> found.nearest.tolist(), found.pairs.queries.tolist(), found.pairs.references.tolist()
        ([1, 0, 1], [0], [1])
    """
    views, references = prepare(views, references, device)
    repeats = Repeats.of(references)
    machine = engine(views, references[repeats.firsts] if repeats else references)
    own = np.arange(len(views[0])) if within else None
    ranking = Ranking(len(views[0]), 1, repeats, own)
    strongest = Strongest(max_pairs)
    for block in machine.blocks(k=ranking.depth, threshold=threshold, later=False):
        for found in block.found:
            ranking.add(machine, found)
            strongest.add(_reaching(machine, found, threshold), repeats, later=within)
        ranking.settle(machine)
    return Scan(ranking.indices[:, 0], ranking.similarities[:, 0], strongest.pairs(), strongest.count)


def _reaching(machine: Engine, found: Found, threshold: float) -> Pairs:
    near = found.scores >= threshold - 2 * machine.rounding
    queries, references = found.queries[near], found.references[near]
    similarities = machine.exact(queries, references)
    reached = similarities >= threshold
    return Pairs(queries[reached], references[reached], similarities[reached])
