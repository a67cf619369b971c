"""What a pass over all scores needs from the machine it runs on, and which machine that is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vlm_tune.errors import EmbeddingError

__all__ = ["Block", "Engine", "Found", "Pairs", "check_norms", "engine", "fold", "prepare"]

Array = NDArray[np.float32]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]

LONGEST = 1.001
"""Norm a row may have: 1, and what rounding to half precision adds."""
GPU_WORK = 1e12
"""Multiplications from which asking for a GPU pays: a few seconds of a CPU, as long as importing torch."""


class Pairs(NamedTuple):
    """Pairs of photos; each array has shape (P,).

    Attributes:
        queries: Index of the query.
        references: Index of the reference.
        similarities: Their cosine, float64.
    """

    queries: Indices
    references: Indices
    similarities: Scores

    def take(self, which: Indices | NDArray[np.bool_] | slice) -> Pairs:
        """Return some of the pairs."""
        return Pairs(self.queries[which], self.references[which], self.similarities[which])

    @classmethod
    def join(cls, parts: Iterable[Pairs]) -> Pairs:
        """Return the pairs of all parts."""
        queries, references, similarities = zip(_NO_PAIRS, *parts, strict=True)
        return cls(np.concatenate(queries), np.concatenate(references), np.concatenate(similarities))


_NO_PAIRS = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


class Found(NamedTuple):
    """Pairs that may matter: like `Pairs`, but the scores are off by up to the engine's `rounding`."""

    queries: Indices
    references: Indices
    scores: Array


class Block(NamedTuple):
    """Some consecutive queries, and pairs of theirs; these are computed while they are drawn."""

    start: int
    stop: int
    found: Iterator[Found]


class Engine(Protocol):
    """Computes scores in blocks."""

    rounding: float
    """How far a score it reports may be from the true one."""

    def blocks(self, *, k: int, threshold: float, later: bool) -> Iterator[Block]:
        """Yield, for some queries at a time, all pairs that may matter, and some more.

        These are the pairs that may be among the `k` most similar of their query, or reach the threshold.

        Args:
            k: Neighbours that are looked for; 0 for none.
            threshold: Least similarity; infinite for none.
            later: Leave out references that stand before the query.
        """

    def exact(self, queries: Indices, references: Indices) -> Scores:
        """Return the similarities of some pairs, summed in double precision; shape (P,)."""


def prepare(views: Sequence[Any], references: Any, device: str) -> tuple[list[Any], Any]:
    """Bring embeddings to the device that will search them, in single precision: arrays on a CPU, else tensors.

    Raises:
        EmbeddingError: The embeddings do not fit together.
    """
    shapes = [tuple(matrix.shape) for matrix in (*views, references)]
    if not views or any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise EmbeddingError(f"embeddings must be rows of one length, got shapes {', '.join(map(str, shapes))}")
    if len({shape[0] for shape in shapes[:-1]}) > 1:
        raise EmbeddingError(f"views of the same photos must have as many rows each, got shapes {shapes[:-1]}")
    work = float(len(views)) * shapes[0][0] * shapes[-1][0] * shapes[0][1]
    chosen = _choose(device, [*views, references], work)
    if chosen == "cpu" or not work:
        return [_array(view) for view in views], _array(references)
    return [_tensor(view, chosen) for view in views], _tensor(references, chosen)


def engine(views: Sequence[Any], references: Any) -> Engine:
    """Return the engine for embeddings from `prepare`.

    Raises:
        EmbeddingError: They are not finite, or longer than 1.
    """
    if isinstance(references, np.ndarray):
        from vlm_tune.leakage.neighbours.host import HostEngine

        return HostEngine(views, references)
    from vlm_tune.leakage.neighbours.device import DeviceEngine

    return DeviceEngine(views, references)


def check_norms(norms: Scores) -> None:
    """Refuse rows whose similarities would not be cosines.

    Raises:
        EmbeddingError: A norm is not finite or greater than 1.
    """
    wrong = np.flatnonzero(~(norms <= LONGEST))
    if len(wrong):
        raise EmbeddingError(
            f"{len(wrong)} of {len(norms)} embeddings are not finite or longer than 1, the first is row {wrong[0]} "
            f"with norm {norms[wrong[0]]:g}; bring every row to norm 1"
        )


def fold(products: Any) -> Any:
    """Sum each row of an array or a tensor (P, D) by adding its second half to its first, over and over.

    In this order the sums are the same bits on every machine and wherever a row stands, so that equal rows tie.
    """
    width = products.shape[1]
    while width > 1:
        half = -(-width // 2)
        products[:, : width - half] += products[:, half:width]
        width = half
    return products[:, 0]


def _choose(device: str, matrices: Sequence[Any], work: float) -> str:
    if device != "auto":
        return device
    on_gpu = [str(matrix.device) for matrix in matrices if str(getattr(matrix, "device", "cpu")) != "cpu"]
    if on_gpu:
        return on_gpu[0]
    if work < GPU_WORK:
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _array(matrix: Any) -> Array:
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().float().cpu().numpy()
    return np.ascontiguousarray(matrix, np.float32)


def _tensor(matrix: Any, device: str) -> Any:
    import torch

    # A view that runs backwards through an array, such as mirrored columns, is something torch does not take.
    if isinstance(matrix, np.ndarray):
        matrix = np.ascontiguousarray(matrix)
    return torch.as_tensor(matrix, dtype=torch.float32, device=device).contiguous()
