"""A sheet of training photos as training sees them, with the answers that each of them gets."""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, ClassVar, Literal

from PIL import Image
from pydantic import Field, NonNegativeInt

from vlm_tune import images
from vlm_tune.errors import TrainingError
from vlm_tune.records import Record, SavedRecord
from vlm_tune.training.augmenting.settings import Augment
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.photos import Photos
from vlm_tune.training.running.steps import Row, steps_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from vlm_tune.data import Dataset

__all__ = ["BatchSheet", "SeenPhoto", "sheet_of"]

_SIDE = 320
"""Longer side of a picture on the sheet, in pixels; smaller photos stay as they are."""

_COLUMNS = 4


class SeenPhoto(Record):
    """One training photo as it is seen once."""

    example_id: str
    """The photo."""
    other_id: str | None = None
    """The photo that is mixed in."""
    mixed_by: Literal["mixup", "cutmix"] | None = None
    """How."""
    answers: dict[str, float]
    """What it is answered by, and the share of each answer in the loss: lambda and 1 - lambda, or 1."""
    changes: tuple[str, ...] = ()
    """What became of it before, in order."""
    picture: str = Field(repr=False)
    """The photo as it is seen, at most 320 pixels wide and high, as a data URI."""

    @property
    def caption(self) -> str:
        """The answers in one line.

        Examples:
            >>> SeenPhoto(example_id="7.jpg", answers={"crack": 0.7, "dent": 0.3}, picture="").caption
            '0.70 crack + 0.30 dent'
        """
        if len(self.answers) == 1:
            return next(iter(self.answers))
        return " + ".join(f"{share:.2f} {label}" for label, share in self.answers.items())


class BatchSheet(SavedRecord):
    """The first training photos of an epoch, just as training sees them then."""

    saved_as: ClassVar[str] = "batch sheet"
    augment: Augment | None
    """Which changes there are."""
    epoch: NonNegativeInt
    """Number of the pass, from 0."""
    photos: tuple[SeenPhoto, ...]
    """The photos, in the order in which they come."""

    @property
    def headline(self) -> str:
        """What is seen in one line."""
        number = sum(photo.other_id is not None for photo in self.photos)
        mixed = f", {number} of them mixed" if number else ""
        return f"The first {len(self.photos)} training photos of epoch {self.epoch}{mixed}"

    def _rich(self) -> RenderableType:
        """Draw what becomes of each photo."""
        from rich.table import Table
        from rich.text import Text

        table = Table("photo", "answered by", "changes", title=self.headline, title_justify="left")
        for photo in self.photos:
            mixed = f"{photo.mixed_by} with {photo.other_id}" if photo.other_id else ""
            done = ", ".join(filter(None, [*photo.changes, mixed]))
            table.add_row(Text(photo.example_id), Text(photo.caption), Text(done or "none"))
        return table

    def to_html(self) -> str:
        """Return the photos themselves with their answers as an HTML fragment."""
        tiles = "".join(
            f"<figure style='display:inline-block;margin:4px;width:170px;vertical-align:top'>"
            f"<img src='{photo.picture}' alt='' style='width:100%'>"
            f"<figcaption>{html.escape(photo.caption)}</figcaption></figure>"
            for photo in self.photos
        )
        return f"<p><b>{html.escape(self.headline)}</b></p><div>{tiles}</div>"

    def frame(self) -> pd.DataFrame:
        """Return one row an answer: photo, the one mixed in, how, changes, label and share."""
        import pandas as pd

        rows = [
            {
                "example_id": photo.example_id,
                "other_id": photo.other_id,
                "mixed_by": photo.mixed_by,
                "changes": ", ".join(photo.changes),
                "label": label,
                "share": share,
            }
            for photo in self.photos
            for label, share in photo.answers.items()
        ]
        return pd.DataFrame(rows)

    def plot(self) -> Figure:
        """Draw the photos, under each its answers and their shares."""
        from vlm_tune import plots

        shown = [_picture(photo.picture) for photo in self.photos]
        captions = [photo.caption for photo in self.photos]
        return plots.image_grid(shown, captions, columns=_COLUMNS, title=self.headline)


def sheet_of(train: Dataset, config: TrainConfig, *, num_examples: int, epoch: int) -> BatchSheet:
    """Return the first photos of an epoch of training; no model is needed.

    Args:
        train: The training examples.
        config: How training would be done.
        num_examples: How many; all, if there are fewer.
        epoch: Number of the pass, from 0.

    Raises:
        TrainingError: There would be none.
        ImageError: A photo cannot be read.
    """
    if num_examples < 1 or epoch < 0:
        raise TrainingError(f"a sheet needs num_examples >= 1 and epoch >= 0, got {num_examples} and {epoch}")
    photos = Photos(train.examples, max_pixels=train.task.max_pixels)
    steps = steps_of(config, [example.label for example in train])
    steps.epoch = epoch
    rows = [row for (step,) in steps for row in step.everyone][:num_examples]
    return BatchSheet(augment=config.augment, epoch=epoch, photos=tuple(_seen(train, photos, row) for row in rows))


def _seen(train: Dataset, photos: Photos, row: Row) -> SeenPhoto:
    mix = row.view.mix
    return SeenPhoto(
        example_id=train.examples[row.index].id,
        other_id=None if mix is None else train.examples[mix.index].id,
        mixed_by=None if mix is None else "mixup" if mix.centre is None else "cutmix",
        answers={one.label: one.share for one in photos.answers(row)},
        changes=tuple(change.name for change in row.view.changes),
        picture=_uri(photos.shown(row)),
    )


def _uri(photo: NDArray[np.uint8]) -> str:
    image, buffer = Image.fromarray(photo), io.BytesIO()
    if max(image.size) <= _SIDE:
        image.save(buffer, "PNG")
        return images.data_uri(buffer.getvalue(), "image/png")
    image.thumbnail((_SIDE, _SIDE))
    image.save(buffer, "JPEG", quality=90)
    return images.data_uri(buffer.getvalue(), "image/jpeg")


def _picture(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
