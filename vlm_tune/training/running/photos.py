"""The photos of a training as they are seen: decoded, changed, mixed, and whose answers they get."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from vlm_tune import images
from vlm_tune.images.pixels import fitting_size
from vlm_tune.records import Example
from vlm_tune.training.augmenting.applying import changed, mixed
from vlm_tune.training.running.shelf import Shelf
from vlm_tune.training.running.steps import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Answered", "Photos"]


@dataclass(frozen=True)
class Answered:
    """One of the answers that a photo gets.

    Attributes:
        label: The answer.
        share: How much of the photo it is for; those of a photo add up to 1.
        weight: How much its loss counts: the share times the example's weight.
    """

    label: str
    share: float
    weight: float


class Photos:
    """The photos of some examples, each decoded once as long as there is room; threads may share it.

    Attributes:
        full: Whether one had to be let go for want of room.

    Args:
        examples: The labelled photos.
        max_pixels: Largest width x height; larger photos are shrunk, as they are for every predictor.
        kept: What trainings of this model keep for one another; see `Resident.kept`.
        limit: Bytes of main memory that decoded photos may take.
    """

    def __init__(
        self, examples: Sequence[Example], *, max_pixels: int, kept: dict[str, Any] | None = None, limit: float = 0.0
    ) -> None:
        self._examples, self._max_pixels = examples, max_pixels
        kept = {} if kept is None else kept
        self._shelf, self._limit = Shelf.of(kept, "decoded"), limit
        self.full = False
        self._sizes: dict[Hashable, tuple[int, int]] = kept.setdefault("sizes", {})

    def key(self, index: int) -> Hashable:
        """Return what decides an example's pixels: the content of its photo, and how large it may be.

        Raises:
            ImageError: The photo is missing.
        """
        return self._examples[index].content_hash, self._max_pixels

    @cached_property
    def keys(self) -> Collection[Hashable]:
        """The keys of all examples."""
        return {self.key(index) for index in range(len(self._examples))}

    def get(self, index: int) -> NDArray[np.uint8]:
        """Return an example's photo as bytes of shape (height, width, 3), not to be written to.

        Raises:
            ImageError: The photo cannot be read.
        """
        import numpy as np

        photo: NDArray[np.uint8] | None = self._shelf.get(self.key(index))
        if photo is None:
            photo = np.asarray(images.shown(self._examples[index].image, max_pixels=self._max_pixels))
            put = partial(self._shelf.put, limit=self._limit, wanted=lambda: self.keys)
            self.full |= not put(self.key(index), photo, num_bytes=photo.nbytes)
        self.learn(index, (photo.shape[1], photo.shape[0]))
        return photo

    def learn(self, index: int, size: tuple[int, int]) -> None:
        """Take note of an example's width and height in pixels."""
        self._sizes[self.key(index)] = size

    def size(self, index: int) -> tuple[int, int]:
        """Return an example's width and height in pixels; no more than the photo's header is read.

        Raises:
            ImageError: It cannot be read.
        """
        key = self.key(index)
        if key not in self._sizes:
            info = images.probe(self._examples[index].image)
            self._sizes[key] = fitting_size(info.width, info.height, max_pixels=self._max_pixels)
        return self._sizes[key]

    def shown(self, row: Row) -> NDArray[np.uint8]:
        """Return a photo as it is seen, of its own size, as bytes of shape (height, width, 3).

        Args:
            row: Which photo, and how it is seen.

        Raises:
            ImageError: A photo cannot be read.
        """
        photo, mix = changed(self.get(row.index), row.view.changes), row.view.mix
        if mix is None:
            return photo
        return mixed(photo, changed(self.get(mix.index), mix.changes), mix)

    def answers(self, row: Row) -> tuple[Answered, ...]:
        """Return what a photo is answered by: its label, or both labels of a mixed one, unless they are the same.

        Raises:
            ImageError: A photo cannot be read.
        """
        label, mix = self._examples[row.index].label, row.view.mix
        if mix is None:
            return (Answered(label, 1.0, row.weight),)
        share, other = mix.share(*self.size(row.index)), self._examples[mix.index].label
        weight, others = share * row.weight, (1 - share) * mix.weight
        if label == other:
            return (Answered(label, 1.0, weight + others),)
        both = Answered(label, share, weight), Answered(other, 1 - share, others)
        return tuple(one for one in both if one.share > 0)
