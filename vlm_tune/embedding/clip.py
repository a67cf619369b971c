"""Embeddings by the models of the open_clip library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune._files import sha256
from vlm_tune.embedding.adaptable import Adaptable
from vlm_tune.errors import ModelError
from vlm_tune.images import decode

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OpenClip"]

Array = NDArray[np.float32]


class OpenClip(Adaptable):
    """A model of the open_clip library.

    Nothing is loaded or downloaded before the first call of `embed`. Images are decoded in threads while the
    batch before them is embedded; a GPU computes in half precision.

    Args:
        model: Architecture, as open_clip names it (`ViT-B-32`), or `local-dir:` and a folder.
        weights: Tag of published weights (downloaded by open_clip on first use), path of a weights file, or
            None for those in the model's folder, or else random ones.
        device: Where it runs; `auto` takes a GPU when there is one.
        batch_size: Images embedded at a time.

    Attributes:
        model: The architecture.
        weights: The tag or the path, as text.
    """

    def __init__(
        self,
        model: str = "ViT-B-32",
        weights: str | Path | None = "laion2b_s34b_b79k",
        *,
        device: str = "auto",
        batch_size: int = 64,
    ) -> None:
        self.model = model
        self.weights = None if weights is None else str(weights)
        self.device = device
        self.batch_size = batch_size

    def __getstate__(self) -> dict[str, object]:
        # The loaded model stays here; another process has a device of its own.
        known = vars(type(self))
        return {name: value for name, value in vars(self).items() if not isinstance(known.get(name), cached_property)}

    @property
    def name(self) -> str:
        """Architecture and weights, such as `open_clip ViT-B-32 laion2b_s34b_b79k`."""
        if self.weights is None:
            return f"open_clip {self.model}" + ("" if self.model.startswith("local-dir:") else " random weights")
        return f"open_clip {self.model} {Path(self.weights).name}"

    @cached_property
    def fingerprint(self) -> str | None:
        """Architecture, and tag or content of the weights; None for random weights, which differ each time."""
        folder = Path(self.model.removeprefix("local-dir:"))
        file = None if self.weights is None else Path(self.weights)
        if file is not None:
            return f"open_clip {self.model} {sha256(file) if file.is_file() else file}"
        if folder.is_dir():
            return f"open_clip {' '.join(sha256(path) for path in sorted(folder.iterdir()) if path.is_file())}"
        return None

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, D), float32.

        Raises:
            ImageError: An image cannot be decoded.
            ModelError: open_clip does not know the model, or the weights are missing or do not fit it.
        """
        model, _ = self._loaded
        rows = [self._forward(model, pixels) for pixels in self._batches(images)]
        return np.concatenate(rows) if rows else np.zeros((0, model.visual.output_dim), np.float32)

    def _batches(self, images: Sequence[bytes]) -> Iterator[Tensor]:
        """Yield batches of pixels, and decode the next one while one is in use."""
        import torch

        _, prepare = self._loaded
        starts = range(0, len(images), self.batch_size)
        with ThreadPoolExecutor() as pool:
            ahead: list[Future[Tensor]] = []
            for start in (*starts, None):
                ready = ahead
                part = () if start is None else images[start : start + self.batch_size]
                ahead = [pool.submit(lambda data: prepare(decode(data)), data) for data in part]
                if ready:
                    yield torch.stack([future.result() for future in ready])

    def _forward(self, model: Any, pixels: Tensor) -> Array:
        import torch

        with torch.inference_mode():
            vectors = model.encode_image(pixels.to(self._device, self._dtype), normalize=True)
        return np.asarray(vectors.float().cpu().numpy(), np.float32)

    @cached_property
    def _device(self) -> str:
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    @property
    def _dtype(self) -> Any:
        import torch

        return torch.float16 if self._device.startswith("cuda") else torch.float32

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        import open_clip

        precision = "fp16" if self._device.startswith("cuda") else "fp32"
        try:
            model, _, prepare = open_clip.create_model_and_transforms(
                self.model, pretrained=self.weights, device=self._device, precision=precision
            )
        # Each kind of weights file is read by a library of its own, which fails in a way of its own.
        except Exception as error:
            raise ModelError(f"cannot load {self.name}: {_reason(error)}") from error
        return model.eval(), prepare


def _reason(error: Exception) -> str:
    """Return what went wrong; of layers that do not fit, only the first few."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "state_dict" not in text:
        return text[:500]
    return f"{text[:200]}...; these weights are of another architecture"
