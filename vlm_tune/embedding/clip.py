"""Embeddings by the models of the open_clip library."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune.errors import ModelError
from vlm_tune.images import decode

__all__ = ["OpenClip"]

Array = NDArray[np.float32]


class OpenClip:
    """A model of the open_clip library.

    Nothing is loaded or downloaded before the first call of `embed`.

    Args:
        model: Architecture, as open_clip names it (`ViT-B-32`), or `local-dir:` and a folder.
        pretrained: Tag of published weights (downloaded by open_clip on first use), path of a weights file,
            or None for the model's own ones or random ones.
        device: Where it runs; `auto` takes a GPU when there is one.
        batch_size: Images embedded at a time.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        pretrained: str | Path | None = "laion2b_s34b_b79k",
        *,
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        self.model = model
        self.pretrained = None if pretrained is None else str(pretrained)
        self.device = device
        self.batch_size = batch_size

    @property
    def name(self) -> str:
        """Architecture and weights, such as `open_clip ViT-B-32 laion2b_s34b_b79k`."""
        weights = "random weights" if self.pretrained is None else Path(self.pretrained).name
        return f"open_clip {self.model} {weights}"

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, D), float32.

        Raises:
            ImageError: An image cannot be decoded.
            ModelError: open_clip does not know the model, or the weights are missing or do not fit it.
        """
        starts = range(0, len(images), self.batch_size)
        rows = [self._batch(images[start : start + self.batch_size]) for start in starts]
        return np.concatenate(rows) if rows else np.zeros((0, self._loaded[0].visual.output_dim), np.float32)

    def _batch(self, images: Sequence[bytes]) -> Array:
        import torch

        model, prepare = self._loaded
        pixels = torch.stack([prepare(decode(data)) for data in images]).to(self._device)
        with torch.inference_mode():
            vectors = model.encode_image(pixels, normalize=True)
        return np.asarray(vectors.float().cpu().numpy(), np.float32)

    @cached_property
    def _device(self) -> str:
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import open_clip

        try:
            model, _, prepare = open_clip.create_model_and_transforms(
                self.model, pretrained=self.pretrained, device=self._device
            )
        except (RuntimeError, ValueError, OSError, KeyError) as error:
            raise ModelError(f"cannot load {self.name}: {error}") from error
        return model.eval(), prepare
