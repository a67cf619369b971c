"""The photos that do not decode: found by decoding each once, listed with the reason, kept for the next run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt

from vlm_tune import images
from vlm_tune._console import progress
from vlm_tune.errors import ImageError
from vlm_tune.records import Example, Record, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Quarantine", "Quarantined", "inspect"]

_MAX_LISTED = 20
_MAX_WORKERS = 8
# So many photos wait for a thread at a time: memory stays small however large the dataset is.
_BATCH = 1024


class Quarantined(Record):
    """One photo that does not decode."""

    example_id: str
    """The example's id."""
    reason: str
    """What is wrong with it."""


class Quarantine(SavedRecord):
    """The photos of a dataset that do not decode; made by `Dataset.quarantine`.

    Examples:
        >>> from vlm_tune.data import Dataset
        >>> from vlm_tune.images import blank
        >>> from vlm_tune.task import Task
        >>> task = Task(prompt="Which one?", classes=("crack", "dent"))
        >>> photos = [Example(id=f"{i}", image=blank(8, 8), label=task.classes[i % 2]) for i in range(4)]
        >>> photos.append(Example(id="broken", image=b"", label="dent"))
        >>> data = Dataset(photos, task=task)
        >>> quarantine = data.quarantine()
        >>> quarantine.ids
        ('broken',)
        >>> data.without(quarantine.ids)
        Dataset(4 examples, 2 classes)
    """

    saved_as: ClassVar[str] = "quarantine list"
    dataset_fingerprint: str
    """Fingerprint of the dataset that was looked at."""
    num_examples: NonNegativeInt
    """Number of photos that were looked at."""
    photos: tuple[Quarantined, ...]
    """Those that do not decode, in the dataset's order."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids: what `Dataset.without` takes."""
        return tuple(photo.example_id for photo in self.photos)

    def _rich(self) -> RenderableType:
        """Draw the photos and why they do not decode."""
        from rich.text import Text

        return self._table() if self.photos else Text(f"All {self.num_examples} photos decode.")

    def frame(self) -> pd.DataFrame:
        """Return a row for each photo: `example_id` and `reason`."""
        import pandas as pd

        rows = [(photo.example_id, photo.reason) for photo in self.photos]
        return pd.DataFrame(rows, columns=["example_id", "reason"])

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        title = f"{len(self.photos)} of {self.num_examples} photos do not decode"
        table = Table("photo", "why", title=title, title_justify="left")
        for photo in self.photos[:_MAX_LISTED]:
            table.add_row(Text(photo.example_id), Text(photo.reason))
        if (more := len(self.photos) - _MAX_LISTED) > 0:
            table.add_row(f"and {more} more", "")
        return table


def inspect(examples: Sequence[Example]) -> tuple[Quarantined, ...]:
    """Decode every photo in threads and return those that do not decode, in order."""
    return tuple(found for found in _looked_at(examples) if found is not None)


def _looked_at(examples: Sequence[Example]) -> Iterator[Quarantined | None]:
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress("Decoding photos", total=len(examples)) as bar:
        for start in range(0, len(examples), _BATCH):
            for found in pool.map(_look_at, examples[start : start + _BATCH]):
                bar.advance()
                yield found


def _look_at(example: Example) -> Quarantined | None:
    try:
        images.decode(example.read(), name=example.id)
    except ImageError as error:
        return Quarantined(example_id=example.id, reason=error.reason)
    return None
