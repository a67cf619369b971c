"""What an embedder is, and which one is used unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding.clip import OpenClip
from vlm_tune.embedding.pixels import PixelEmbedder

__all__ = ["Embedder", "default_embedder"]

Array = NDArray[np.float32]

_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


class Embedder(Protocol):
    """Anything that turns photos into vectors whose cosine says how alike they look.

    An embedder that gives a photo and its mirror image the same vector may say so with a further attribute
    `mirror_invariant = True`; it saves a second search.
    """

    @property
    def name(self) -> str:
        """What reports call it; another name means other vectors."""

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, D), float32.

        Raises:
            ImageError: An image cannot be decoded.
        """


def default_embedder() -> Embedder:
    """Return open_clip's ViT-B-32 when its weights are already on this machine, `PixelEmbedder` otherwise.

    Nothing is downloaded; to have the weights fetched, pass `OpenClip()` itself.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"):
        weights = try_to_load_from_cache(_REPOSITORY, name)
        if isinstance(weights, str):
            return OpenClip("ViT-B-32", weights)
    return PixelEmbedder()
