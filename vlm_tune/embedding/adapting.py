"""Fitting an embedder to one domain: a small projection under which changed copies of a photo stay together."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from vlm_tune._console import progress
from vlm_tune.embedding.embedder import Embedder
from vlm_tune.embedding.workers import workers
from vlm_tune.errors import EmbeddingError
from vlm_tune.images import decode
from vlm_tune.records import Example

__all__ = ["AdaptedEmbedder", "adapt"]

Array = NDArray[np.float32]
Change = Callable[[Image.Image, np.random.Generator], Image.Image]

LONG_SIDE = 512
"""Training photos are changed at this length at most, in pixels."""
FEWEST = 16
"""With fewer photos there is nothing to learn what tells them apart."""
BATCH, STEPS, DIMENSIONS, TEMPERATURE, LEARNING_RATE = 128, 300, 128, 0.1, 1e-3


class AdaptedEmbedder:
    """An embedder followed by a projection; `adapt` makes it.

    Args:
        embedder: What makes the vectors.
        mean: Subtracted from them, shape (D,).
        projection: What they are multiplied by, shape (D, E).
    """

    def __init__(self, embedder: Embedder, mean: Array, projection: Array) -> None:
        self._embedder = embedder
        self._mean = mean
        self._projection = projection
        self.name = f"{embedder.name}, adapted"
        self.mirror_invariant = bool(getattr(embedder, "mirror_invariant", False))
        base = getattr(embedder, "fingerprint", embedder.name)
        learnt = hashlib.sha256(mean.tobytes() + projection.tobytes()).hexdigest()
        self.fingerprint = None if base is None else f"{base}, adapted {learnt}"

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image, shape (N, E), float32.

        Raises:
            ImageError: An image cannot be decoded.
        """
        return self.project(self._embedder.embed(images))

    def project(self, vectors: Array) -> Array:
        """Return vectors (N, D) of the embedder as this one would give them, shape (N, E)."""
        rows = (vectors - self._mean) @ self._projection
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def adapt(embedder: Embedder, train: Sequence[Example], *, num_views: int = 2, seed: int = 0) -> AdaptedEmbedder:
    """Fit an embedder to the photos of one domain, where everything looks alike.

    Changed copies of the training photos (cropped, mirrored, turned, recoloured, framed, blurred, re-encoded) are
    embedded, and a linear projection is learnt under which a photo's copies are closer to each other than to
    other photos: NT-Xent (T. Chen, S. Kornblith, M. Norouzi, G. Hinton, A Simple Framework for Contrastive
    Learning of Visual Representations, ICML 2020). Labels are not looked at. It takes as long as embedding the
    photos `num_views + 1` times, and some seconds.

    Args:
        embedder: What to fit.
        train: Photos of the training split.
        num_views: Changed copies of each photo.
        seed: Decides the changes.

    Raises:
        EmbeddingError: There are fewer than 16 photos.
        ImageError: A photo cannot be read.

    Examples:
        >>> from vlm_tune.embedding import PixelEmbedder
        >>> from vlm_tune.testing import tiny_dataset
        >>> train = tiny_dataset(7, split=False)
        >>> adapt(PixelEmbedder(), train).embed([train[0].read()]).shape
        (1, 42)
    """
    if len(train) < FEWEST:
        raise EmbeddingError(f"adapting needs at least {FEWEST} training photos, got {len(train)}")

    def views(numbered: tuple[int, Example]) -> list[bytes]:
        number, example = numbered
        rng = np.random.default_rng([seed, number])
        image = decode(example.read(), name=example.id)
        image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BOX)
        return [_encoded(image, 95), *(_changed(image, rng) for _ in range(num_views))]

    planes: list[list[Array]] = [[] for _ in range(num_views + 1)]
    with progress("Embedding changed copies", total=len(train)) as bar:
        for start in range(0, len(train), BATCH):
            batch = list(enumerate(train))[start : start + BATCH]
            with workers() as pool:
                copies = list(pool.map(views, batch))
            for plane, images in zip(planes, zip(*copies, strict=True), strict=True):
                plane.append(embedder.embed(list(images)))
            bar.advance(len(batch))
    rows = np.stack([np.concatenate(plane) for plane in planes])
    mean = np.asarray(rows[0].mean(axis=0), np.float32)
    return AdaptedEmbedder(embedder, mean, _learn(np.asarray(rows - mean, np.float32), seed=seed))


def _learn(rows: Array, *, seed: int) -> Array:
    """Learn the projection from embeddings of several views of N photos, shape (views, N, D)."""
    import torch
    from torch.nn.functional import cross_entropy, normalize

    generator = torch.Generator().manual_seed(seed)
    data = torch.from_numpy(rows)
    # The main axes of all views are where it starts: as many as there can be, and no more than wanted.
    _, _, axes = np.linalg.svd(rows.reshape(-1, rows.shape[2])[: 16 * DIMENSIONS], full_matrices=False)
    width = min(DIMENSIONS, len(axes), 2 * rows.shape[1])
    projection = torch.from_numpy(np.ascontiguousarray(axes[:width].T)).requires_grad_()
    optimizer = torch.optim.Adam([projection], lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            photos = torch.randperm(data.shape[1], generator=generator)[:BATCH]
            first, second = torch.randperm(len(data), generator=generator)[:2].tolist()
            both = normalize(torch.cat([data[first, photos], data[second, photos]]) @ projection, dim=1)
            scores = (both @ both.T / TEMPERATURE).fill_diagonal_(-torch.inf)
            loss = cross_entropy(scores, torch.arange(len(both)).roll(len(photos)))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return np.asarray(projection.detach().numpy(), np.float32)


def _changed(image: Image.Image, rng: np.random.Generator) -> bytes:
    for which in rng.choice(len(_CHANGES), size=2, replace=False):
        image = _CHANGES[which](image, rng)
    return _encoded(image, int(rng.integers(30, 96)))


def _encoded(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (max(1, round(side * rng.uniform(0.6, 0.95))) for side in image.size)
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def _framed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    grey = int(rng.choice((0, 128, 255)))
    return ImageOps.expand(image, max(1, round(rng.uniform(0.02, 0.1) * max(image.size))), (grey, grey, grey))


def _covered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A bar over the upper or lower edge, as captions have."""
    bar = Image.new("RGB", (image.width, max(1, image.height // 8)), (int(rng.choice((0, 255))),) * 3)
    covered = image.copy()
    covered.paste(bar, (0, int(rng.choice((0, image.height - bar.height)))))
    return covered


def _tinted(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * rng.uniform(0.75, 1.25, 3), 0, 255).astype(np.uint8))


def _resized(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.5, 1.5)
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


_CHANGES: tuple[Change, ...] = (
    _cropped,
    _framed,
    _covered,
    _tinted,
    _resized,
    lambda image, rng: ImageOps.mirror(image),
    lambda image, rng: image.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC),
    lambda image, rng: ImageEnhance.Brightness(image).enhance(rng.uniform(0.7, 1.3)),
    lambda image, rng: ImageEnhance.Contrast(image).enhance(rng.uniform(0.7, 1.3)),
    lambda image, rng: ImageOps.grayscale(image).convert("RGB"),
    lambda image, rng: image.filter(ImageFilter.GaussianBlur(rng.uniform(0.002, 0.01) * max(image.size))),
)
