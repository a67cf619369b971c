"""The parts of a profile: what was measured of each photo, the copies, and the tokens photos cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, NonNegativeInt

from vlm_tune.data.splitting import SplitName
from vlm_tune.records import Record

__all__ = ["CopyGroup", "ImageTokens", "Measured", "Quantiles", "Sample"]


class Quantiles(Record):
    """How a quantity is spread over the images."""

    minimum: float
    """The smallest value."""
    low: float
    """The value that 5 % of the images stay under."""
    median: float
    """The value in the middle."""
    high: float
    """The value that 95 % of the images stay under."""
    maximum: float
    """The largest value."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the quantiles of at least one value, by linear interpolation."""
        import numpy as np

        quantiles = np.quantile(values, (0.0, 0.05, 0.5, 0.95, 1.0)).tolist()
        return cls(**dict(zip(cls.model_fields, quantiles, strict=True)))


class Sample(Record):
    """A small copy of one photo."""

    example_id: str
    """The example's id."""
    label: str
    """The class it is shown for."""
    thumbnail: str = Field(repr=False)
    """A JPEG as a `data:` URI."""


class ImageTokens(Record):
    """What one model family spends on the photos, after they are shrunk to the task's `max_pixels`."""

    each: Quantiles | None
    """Tokens of one photo; None where there is no photo the family takes."""
    total: NonNegativeInt
    """Tokens of all photos together."""
    num_refused: NonNegativeInt
    """Photos that the family's processor refuses, being too long."""


class CopyGroup(Record):
    """Photos that are copies of each other."""

    kind: Literal["identical", "near_copy"]
    """Whether all have the same pixels, or some are edited: resized, cropped, recoloured."""
    ids: tuple[str, ...]
    """The photos, in the dataset's order."""
    labels: tuple[str, ...]
    """Their labels."""
    splits: tuple[SplitName | None, ...]
    """Their splits."""

    @property
    def is_conflict(self) -> bool:
        """Whether their labels differ: at least one is wrong."""
        return len(set(self.labels)) > 1

    @property
    def is_leak(self) -> bool:
        """Whether they lie in more than one split."""
        return len(set(self.splits) - {None}) > 1

    @property
    def twins(self) -> tuple[str, ...]:
        """Those with a copy inside their own split."""
        sizes = Counter(self.splits)
        return tuple(name for name, split in zip(self.ids, self.splits, strict=True) if sizes[split] > 1)


class Measured(Record):
    """What was measured of each photo, as columns in the dataset's order; None where a photo is unreadable.

    `vlm_tune.profiling.measures.Measures` says what each quantity means.
    """

    ids: tuple[str, ...]
    """The examples' ids."""
    labels: tuple[str, ...]
    """Their labels."""
    splits: tuple[SplitName | None, ...]
    """Their splits."""
    width: tuple[int | None, ...]
    """Width in pixels, upright."""
    height: tuple[int | None, ...]
    """Height in pixels, upright."""
    format: tuple[str | None, ...]
    """File format."""
    num_bytes: tuple[int | None, ...]
    """Size of the file."""
    brightness: tuple[float | None, ...]
    """Mean light, 0 to 1."""
    contrast: tuple[float | None, ...]
    """Standard deviation of the light."""
    sharpness: tuple[float | None, ...]
    """Laplacian over gradient; lower is more blurred."""
    detail: tuple[float | None, ...]
    """Share of the photo in which anything is seen."""
    tokens: Mapping[str, tuple[int | None, ...]]
    """Model family to image tokens; None where the family refuses the photo too."""
    vote_share: tuple[float | None, ...] = ()
    """Share of the source's votes that the label got; empty where no photo was voted on."""
    vote_margin: tuple[float | None, ...] = ()
    """How far the label was ahead of the next one; empty where no photo was voted on."""
