"""What an embedder is, and which one is used unless told otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding.clip import OpenClip
from vlm_tune.embedding.pixels import PixelEmbedder

__all__ = ["Embedder", "default_embedder"]

Array = NDArray[np.float32]

_REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns photos into vectors whose cosine says how alike they look.

    Two further attributes are looked at where an embedder has them. `mirror_invariant = True` says that it gives
    a photo and its mirror image the same vector, which saves a second search. `fingerprint` says under what its
    vectors are kept on disk (its name unless it has one); None keeps them from being kept.
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
