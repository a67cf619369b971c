"""A look at the data before anything is trained: counts, balance, sizes, broken files, a few photos each."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

from PIL import Image
from pydantic import NonNegativeInt, ValidationError

from vlm_tune import images
from vlm_tune._console import progress, show, to_html
from vlm_tune._files import read_json, write_json
from vlm_tune.data import SPLITS, Dataset
from vlm_tune.data.splitting import nested_order
from vlm_tune.errors import ImageError, StorageError
from vlm_tune.records import Example, Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import Group

__all__ = ["Profile", "Quantiles", "Sample", "Unreadable", "profile"]

_ALL = "all"
_CELL = 96
_MAX_LISTED = 10
_MAX_WORKERS = 8
_NUM_SAMPLES = 6


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


class Unreadable(Record):
    """A file that does not decode."""

    example_id: str
    """The example's id."""
    reason: str
    """What is wrong with it."""


class Sample(Record):
    """A small copy of one photo."""

    example_id: str
    """The example's id."""
    label: str
    """Its class."""
    thumbnail: str
    """A JPEG as a `data:` URI."""


class Profile(Record):
    """What a dataset holds; made by `profile`."""

    dataset_fingerprint: str
    """The dataset's fingerprint."""
    classes: tuple[str, ...]
    """The task's classes, those without examples too."""
    counts: Mapping[str, Mapping[str, NonNegativeInt]]
    """Split to class to number of examples; `all` holds the sums, examples without a split included."""
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
    unreadable: tuple[Unreadable, ...]
    """Files that do not decode, with the reason."""
    samples: tuple[Sample, ...]
    """A few readable photos of each class."""

    def show(self) -> None:
        """Show the counts, the sizes and the files that do not decode."""
        group = self._rich()
        show(group, html=to_html(group))

    def frame(self) -> pd.DataFrame:
        """Return a row for each class and a column for each split, `all` last."""
        import pandas as pd

        frame = pd.DataFrame({name: [of[label] for label in self.classes] for name, of in self.counts.items()})
        frame.index = pd.Index(self.classes, name="class")
        return frame

    def plot(self) -> Figure:
        """Draw a row for each class: sample photos, and how many examples each split has."""
        from vlm_tune.plots.style import COLOURS, new_figure, plain

        rows = len(self.classes)
        centres = [row + 0.5 for row in range(rows)]
        title = f"{self.num_examples} photos, {rows} classes"
        figure, axes = new_figure(9.0, 1.0 + 0.76 * rows, title)
        # One unit is one photo, so that the bars, scaled to end at three, stay beside their photos.
        axes.imshow(self._montage(), extent=(0, _NUM_SAMPLES, rows, 0))
        unit = 3 / max(self.counts[_ALL].values())
        left = [_NUM_SAMPLES + 0.3] * rows
        for turn, (name, of) in enumerate(self._by_split().items()):
            sizes = [of[label] for label in self.classes]
            lengths = [size * unit for size in sizes]
            axes.barh(centres, lengths, 0.4, left, color=COLOURS[turn], label=f"{name} n = {sum(sizes)}")
            left = [start + length for start, length in zip(left, lengths, strict=True)]
        for centre, end, label in zip(centres, left, self.classes, strict=True):
            axes.text(end, centre, f" {self.counts[_ALL][label]}", va="center", fontsize=8)
        axes.set_xlim(0, _NUM_SAMPLES + 4)
        axes.set_anchor("N")
        axes.set_xticks([])
        axes.set_yticks(centres, [plain(label, 24) for label in self.classes])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
        return figure

    def save(self, path: Path | str) -> Path:
        """Write the profile as JSON, thumbnails included, and return the path.

        Raises:
            StorageError: The file cannot be written.
        """
        return write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a profile that `save` wrote.

        Raises:
            StorageError: The file is missing or holds no profile.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise StorageError(f"{path} holds no profile: {where}: {first['msg']}") from error

    def _by_split(self) -> dict[str, Mapping[str, int]]:
        """Return the counts of each split, with what is in none under its own name."""
        parts = {name: of for name, of in self.counts.items() if name != _ALL}
        rest = {label: self.counts[_ALL][label] - sum(of[label] for of in parts.values()) for label in self.classes}
        return {**parts, "no split": rest} if any(rest.values()) else parts

    def _montage(self) -> Image.Image:
        montage = Image.new("RGB", (_NUM_SAMPLES * _CELL, len(self.classes) * _CELL), "white")
        columns: Counter[str] = Counter()
        for sample in self.samples:
            photo = images.decode(base64.b64decode(sample.thumbnail.partition(",")[2]), name=sample.example_id)
            photo.thumbnail((_CELL - 4, _CELL - 4))
            x = columns[sample.label] * _CELL + (_CELL - photo.width) // 2
            y = self.classes.index(sample.label) * _CELL + (_CELL - photo.height) // 2
            montage.paste(photo, (x, y))
            columns[sample.label] += 1
        return montage

    def _rich(self) -> Group:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        counts = Table("class", title=f"{self.num_examples} photos", title_justify="left")
        for name, of in self.counts.items():
            counts.add_column(name, justify="right", footer=str(sum(of.values())))
        for label in self.classes:
            counts.add_row(Text(label), *(str(of[label]) for of in self.counts.values()))
        facts = Table.grid(padding=(0, 2))
        for name, value in self._facts():
            facts.add_row(Text(name, style="bold"), Text(value))
        broken = Table("does not decode", "why")
        for file in self.unreadable[:_MAX_LISTED]:
            broken.add_row(Text(file.example_id), Text(file.reason))
        if (more := len(self.unreadable) - _MAX_LISTED) > 0:
            broken.add_row(f"and {more} more", "")
        return Group(counts, facts, *([broken] if self.unreadable else []))

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "balance", f"largest class {self.imbalance:.1f} times the smallest"
        if empty := [label for label in self.classes if not self.counts[_ALL][label]]:
            yield "no example", ", ".join(empty)
        if self.num_groups:
            yield "groups", str(self.num_groups)
        for name, size in (("width", self.width), ("height", self.height)):
            if size is not None:
                yield name, f"{size.minimum:g} to {size.maximum:g} pixels, median {size.median:g}"
        yield "formats", ", ".join(f"{count} {name}" for name, count in self.formats.items()) or "none"
        if self.num_shrunk:
            yield "over the pixel budget", f"{self.num_shrunk}, shrunk for every predictor"
        yield "unreadable", str(len(self.unreadable))


def profile(dataset: Dataset) -> Profile:
    """Count, measure and fully decode every photo of a dataset.

    A file that does not decode is listed in the result, not raised. Photos are decoded in threads; a bar on
    stderr shows the progress.

    Example:
        >>> from vlm_tune.images import blank
        >>> from vlm_tune.task import Task
        >>> task = Task(prompt="Which one?", classes=("crack", "dent"))
        >>> photos = [Example(id=f"{i}", image=blank(8, 8), label=task.classes[i % 2]) for i in range(4)]
        >>> profile(Dataset(photos, task=task)).imbalance
        1.0
    """
    found = list(_look_at_all(dataset))
    infos = [info for info in found if isinstance(info, images.ImageInfo)]
    broken = [item for item in found if isinstance(item, Unreadable)]
    totals = Counter(dataset.labels)
    return Profile(
        dataset_fingerprint=dataset.fingerprint,
        classes=dataset.task.classes,
        counts=_counts(dataset),
        num_examples=len(dataset),
        num_groups=len({example.group for example in dataset if example.group is not None}),
        imbalance=max(totals.values()) / min(totals.values()),
        width=Quantiles.of([info.width for info in infos]) if infos else None,
        height=Quantiles.of([info.height for info in infos]) if infos else None,
        num_shrunk=sum(info.width * info.height > dataset.task.max_pixels for info in infos),
        formats=dict(Counter(info.format for info in infos).most_common()),
        unreadable=tuple(broken),
        samples=tuple(_samples(dataset, broken={item.example_id for item in broken})),
    )


def _look_at_all(dataset: Dataset) -> Iterator[images.ImageInfo | Unreadable]:
    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress("Reading photos", total=len(dataset)) as bar:
        for found in pool.map(_look_at, dataset):
            bar.advance()
            yield found


def _look_at(example: Example) -> images.ImageInfo | Unreadable:
    try:
        data = example.read()
        images.decode(data, name=example.id)
        return images.probe(data)
    except ImageError as error:
        return Unreadable(example_id=example.id, reason=error.reason)


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {name: Counter() for name in SPLITS if dataset.has_split(name)}
    for example_id, name in dataset.splits.items():
        counts[name][dataset.by_id(example_id).label] += 1
    counts[_ALL] = Counter(dataset.labels)
    return {name: {label: of[label] for label in dataset.task.classes} for name, of in counts.items()}


def _samples(dataset: Dataset, *, broken: Collection[str]) -> Iterator[Sample]:
    taken: Counter[str] = Counter()
    readable = {example.id: example.label for example in dataset if example.id not in broken}
    for example_id in nested_order(readable, seed=0):
        label = readable[example_id]
        if taken[label] < _NUM_SAMPLES:
            taken[label] += 1
            thumbnail = images.thumbnail(dataset.by_id(example_id).image, size=_CELL)
            yield Sample(example_id=example_id, label=label, thumbnail=images.data_uri(thumbnail, "image/jpeg"))
