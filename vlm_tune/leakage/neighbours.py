"""Exact nearest neighbours: every query against every reference, in blocks, so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["above", "centred", "top_k"]

Array = NDArray[np.float32]
Indices = NDArray[np.int64]

BLOCK = 2048
"""Queries and references compared at a time: a block of scores takes 16 MB."""


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
    views: Sequence[Array], references: Array, k: int, *, exclude: Indices | None = None
) -> tuple[Indices, Array]:
    """Return the k most similar references of each query, best first.

    Args:
        views: Query embeddings of norm 1, one array (N, D) for each view of the same N photos (such as
            mirrored); a pair's similarity is its best view's.
        references: Reference embeddings of norm 1, shape (M, D).
        k: How many; fewer come back where there are fewer references.
        exclude: For each query a reference that does not count, such as itself, or -1; shape (N,). A query
            left with fewer than k references gets similarity -inf in the last columns.

    Returns:
        Indices (N, k) into the references and similarities (N, k). Equal similarities keep the order of the
        references.
    """
    num_queries, k = len(views[0]), min(k, len(references))
    indices, scores = np.zeros((num_queries, k), np.int64), np.full((num_queries, k), -np.inf, np.float32)
    for rows, columns, block in _blocks(views, references):
        if exclude is not None:
            _forget(block, exclude[rows], columns)
        numbers = np.broadcast_to(np.arange(columns.start, columns.stop), block.shape)
        all_scores = np.concatenate([scores[rows], block], axis=1)
        all_indices = np.concatenate([indices[rows], numbers], axis=1)
        order = np.argsort(-all_scores, axis=1, kind="stable")[:, :k]
        scores[rows] = np.take_along_axis(all_scores, order, axis=1)
        indices[rows] = np.take_along_axis(all_indices, order, axis=1)
    return indices, scores


def above(views: Sequence[Array], references: Array, threshold: float) -> Iterator[tuple[Indices, Indices, Array]]:
    """Yield every pair whose similarity reaches a threshold, block by block.

    Args:
        views: Query embeddings, as for `top_k`.
        references: Reference embeddings of norm 1, shape (M, D).
        threshold: Least cosine similarity.

    Yields:
        Query indices, reference indices and similarities, each of shape (P,), by query within a block.
    """
    for rows, columns, block in _blocks(views, references):
        hit_rows, hit_columns = np.nonzero(block >= threshold)
        yield hit_rows + rows.start, hit_columns + columns.start, block[hit_rows, hit_columns]


def _blocks(views: Sequence[Array], references: Array) -> Iterator[tuple[slice, slice, Array]]:
    for start in range(0, len(views[0]), BLOCK):
        rows = slice(start, min(start + BLOCK, len(views[0])))
        for first in range(0, len(references), BLOCK):
            columns = slice(first, min(first + BLOCK, len(references)))
            block = views[0][rows] @ references[columns].T
            for view in views[1:]:
                np.maximum(block, view[rows] @ references[columns].T, out=block)
            yield rows, columns, block


def _forget(block: Array, excluded: Indices, columns: slice) -> None:
    here = (excluded >= columns.start) & (excluded < columns.stop)
    block[np.nonzero(here)[0], excluded[here] - columns.start] = -np.inf
