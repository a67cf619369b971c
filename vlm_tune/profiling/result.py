"""The profile: what a dataset holds, and which of its photos deserve a look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt

from vlm_tune.data import Dataset, Quarantined
from vlm_tune.errors import DataError
from vlm_tune.profiling.records import CopyGroup, ImageTokens, Measured, Quantiles, Sample
from vlm_tune.records import SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["ALL", "NUM_SAMPLES", "SAMPLE_SIZE", "Profile"]

ALL = "all"
"""The name under which counts hold the sums over splits."""

NUM_SAMPLES = 6
SAMPLE_SIZE = 96


class Profile(SavedRecord):
    """What a dataset holds; made by `profile`."""

    saved_as: ClassVar[str] = "profile"
    dataset_fingerprint: str
    """The dataset's fingerprint."""
    classes: tuple[str, ...]
    """The task's classes, those without examples too."""
    counts: Mapping[str, Mapping[str, NonNegativeInt]]
    """Split to class to number of examples; `all` holds the sums, examples without a split included. For a
    multi-label task an example counts for each of its classes, and `none` for those without one."""
    sizes: Mapping[str, NonNegativeInt]
    """Split to number of examples; `all` holds the sum, examples without a split included."""
    num_examples: NonNegativeInt
    """Number of examples."""
    num_groups: NonNegativeInt
    """Number of distinct groups; 0 where no example has one."""
    imbalance: float
    """Size of the largest class over that of the smallest one that has examples; 1 is balanced."""
    width: Quantiles | None
    """Widths in pixels, upright; None where no image is readable."""
    height: Quantiles | None
    """Heights in pixels, upright."""
    num_shrunk: NonNegativeInt
    """Images with more pixels than the task's `max_pixels`, which predictors get shrunk."""
    formats: Mapping[str, NonNegativeInt]
    """File format to number of images, most frequent first."""
    image_tokens: Mapping[str, ImageTokens]
    """Model family (`qwen3_vl`, `lfm2_vl`, ...) to the image tokens it spends; families whose models differ in it
    are left out."""
    unreadable: tuple[Quarantined, ...]
    """Files that do not decode, with the reason."""
    copies: tuple[CopyGroup, ...] | None
    """Photos that are copies of each other, the largest group first; None where they were not looked for."""
    tags: Mapping[str, tuple[str, ...]]
    """Tag to the ids it applies to: `unreadable`, `conflict`, `leak`, `duplicate`, `ambiguous`, `dark`,
    `bright`, `blurry`, `empty`, `odd_shape`. `vlm_tune.profiling.TAGS` says what earns each."""
    photos: Measured
    """What was measured of each photo; `photo_frame` is the same as a table."""
    samples: tuple[Sample, ...]
    """A few readable photos of each class."""

    @property
    def conflicts(self) -> tuple[CopyGroup, ...]:
        """Copies whose labels differ: at least one of them is wrong."""
        return tuple(group for group in self.copies or () if group.is_conflict)

    def _rich(self) -> RenderableType:
        """Draw the counts, the sizes, the tags and the files that do not decode."""
        from vlm_tune.profiling.views import table

        return table(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each class and a column for each split, `all` last."""
        import pandas as pd

        rows = list(self.counts[ALL])
        frame = pd.DataFrame({name: [of[label] for label in rows] for name, of in self.counts.items()})
        frame.index = pd.Index(rows, name="class")
        return frame

    def photo_frame(self) -> pd.DataFrame:
        """Return a row for each photo: what was measured, its image tokens, and a column for each tag."""
        import pandas as pd

        columns = {
            name: getattr(self.photos, name)
            for name in Measured.model_fields
            if name != "tokens" and len(getattr(self.photos, name)) == self.num_examples
        }
        tokens = {f"{family}_tokens": numbers for family, numbers in self.photos.tokens.items()}
        frame = pd.DataFrame({**columns, **tokens}).rename(columns={"ids": "id", "labels": "label", "splits": "split"})
        for tag, ids in self.tags.items():
            frame[tag] = frame["id"].isin(ids)
        return frame

    def plot(self) -> Figure:
        """Draw a row for each class: sample photos, and how many examples each split has."""
        from vlm_tune.profiling.views import figure

        return figure(self)

    def browse(self, dataset: Dataset, path: Path | str) -> Path:
        """Write a page for browsing the photos, and return its path.

        The page filters by class, split, tag and text, sorts, and enlarges a photo on a click. It loads nothing
        but the thumbnails in a folder beside it, named after it: `photos.html` comes with `photos_files/`. An
        enlarged photo is the original where that is still a file in its place, and the thumbnail otherwise.

        Args:
            dataset: The dataset that was profiled.
            path: The HTML file to write.

        Raises:
            DataError: This is not the dataset that was profiled.
            StorageError: The page or a thumbnail cannot be written; the folder of an earlier page is left as it was.
        """
        from vlm_tune.profiling.page import write_page

        if dataset.fingerprint != self.dataset_fingerprint:
            raise DataError(
                f"this profile is about dataset {self.dataset_fingerprint}, not {dataset.fingerprint}: "
                "its examples, labels or splits differ; run profile() on this one"
            )
        return write_page(self, dataset, Path(path))
