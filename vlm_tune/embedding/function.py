"""Anyone's function as an embedder, and the check that what an embedder gives can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding.adaptable import Adaptable
from vlm_tune.embedding.embedder import Embedder
from vlm_tune.errors import EmbeddingError

__all__ = ["EmbeddingFunction", "FunctionEmbedder", "as_embedder", "checked"]

Array = NDArray[np.float32]
EmbeddingFunction: TypeAlias = Callable[[Sequence[bytes]], Any]
"""Takes encoded images, returns an array or a tensor with a row for each."""


class FunctionEmbedder(Adaptable):
    """A function as an embedder.

    Args:
        function: Takes encoded images (the bytes of JPEG or PNG files) and returns an array or a tensor with a
            row for each, shape (N, D). Rows need not have norm 1.
        name: What reports call it. Vectors are kept on disk under this name, so that another function, or
            other weights, need another name. A function without one is asked again in every run.

    Examples:
        >>> from vlm_tune.images import blank
        >>> embedder = FunctionEmbedder(lambda images: [[3.0, 4.0] for _ in images], name="always the same")
        >>> embedder.embed([blank(8, 8)]).round(2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, function: EmbeddingFunction, *, name: str | None = None) -> None:
        self.function = function
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        self.fingerprint = name

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, D), float32.

        Raises:
            EmbeddingError: What the function returned has no row for each image, or is not finite.
        """
        return checked(self.function(images), self.name, [f"image {number}" for number in range(len(images))])


def as_embedder(embedder: Embedder | EmbeddingFunction) -> Embedder:
    """Return an embedder as it is, and a function wrapped as one."""
    return embedder if isinstance(embedder, Embedder) else FunctionEmbedder(embedder)


def checked(rows: Any, embedder: str, images: Sequence[str]) -> Array:
    """Return the rows an embedder gave with norm 1 each; a row of zeros stays one.

    Args:
        rows: What it gave.
        embedder: Its name, for errors.
        images: Names of the images, for errors.

    Raises:
        EmbeddingError: There is no row of numbers for each image, or one is not finite.
    """
    if hasattr(rows, "detach"):
        rows = rows.detach().float().cpu().numpy()
    try:
        array = np.asarray(rows, np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"{embedder} must return rows of numbers, one for each image: {error}") from error
    if array.ndim != 2 or len(array) != len(images) or not array.shape[1]:
        raise EmbeddingError(
            f"{embedder} returned shape {array.shape} for {len(images)} images; "
            f"it must be ({len(images)}, D), a row for each"
        )
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(wrong):
        raise EmbeddingError(
            f"{embedder} returned NaN or infinity for {images[wrong[0]]} (and {len(wrong) - 1} more of "
            f"{len(images)}): look at what it does with this image"
        )
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    return np.asarray(array / np.where(norms > 0, norms, 1), np.float32)
