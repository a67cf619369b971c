"""The dataset: an immutable sequence of examples, their task, and who belongs to which split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, overload

from vlm_tune._console import show, to_html
from vlm_tune.data import splitting
from vlm_tune.data.checks import check, require_ids, with_class
from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.errors import DataError, SplitError
from vlm_tune.records import Example
from vlm_tune.task import Task

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

__all__ = ["Dataset"]


class Dataset(Sequence[Example]):
    """Labelled photos of one task, each in at most one split; every change gives a new dataset.

    Args:
        examples: The photos; a label may be a class or one of its aliases.
        task: The question they answer.
        splits: Example id to `train`, `validation` or `test`; ids that are left out belong to no split.

    Raises:
        DataError: There is no example, an id occurs twice, a split names an unknown id, all examples have one
            class, or a class to be evaluated has no training example.
        UnknownLabelError: A label is not one of the task's classes; the error lists the nearest.

    Example:
        >>> task = Task(prompt="Which one?", classes=("crack", "dent"))
        >>> photos = [Example(id=f"{i}", image=b"...", label=task.classes[i % 2]) for i in range(8)]
        >>> data = Dataset(photos, task=task).split(test=0.25, seed=0)
        >>> data
        Dataset(8 examples, 2 classes, train 6, test 2)
        >>> len(data.test), data.test.has_split("train")
        (2, False)
    """

    def __init__(
        self, examples: Sequence[Example], *, task: Task, splits: Mapping[str, SplitName] | None = None
    ) -> None:
        self._task = task
        self._examples = tuple(with_class(example, task) for example in examples)
        self._splits = dict(splits or {})
        check(self._examples, self._splits, task)
        if len(classes := set(self.labels)) == 1:
            raise DataError(f"all {len(self)} examples have the class {classes.pop()!r}; a task needs two")

    @classmethod
    def from_folder(cls, path: Path | str, *, task: Task, group: str | None = None) -> Dataset:
        """Read class folders, or split folders (`train`, `val`, `test`) that each hold class folders.

        Class folders carry a class's name or alias; split folders any of the usual names in any case. Images
        lie anywhere below their class folder. Hidden files and files with other endings are skipped. Ids are
        paths relative to `path` with forward slashes. No image is opened.

        Args:
            path: The folder.
            task: The question; its classes decide which folders are valid.
            group: Regular expression with one capture group, searched in each id: what it captures is the
                example's group, such as `"part([0-9]+)"`.

        Raises:
            DataError: There is no folder, no image in it, an image outside the class folders, or a link that
                leaves it; or `group` is not such a pattern, or fits no image.
            UnknownLabelError: A folder is not named after a class.
        """
        from vlm_tune.data.folder import read_folder

        examples, splits = read_folder(path, task=task, group=group)
        return cls(examples, task=task, splits=splits)

    @classmethod
    def from_table(
        cls,
        path: Path | str,
        *,
        task: Task,
        image: str = "image",
        label: str = "label",
        split: str = "split",
        group: str = "group",
        root: Path | str | None = None,
    ) -> Dataset:
        """Read a CSV, JSON Lines or Parquet table with one row for each image.

        Args:
            path: The table.
            task: The question.
            image: Column with the image's path, relative to `root`; the relative path becomes the id.
            label: Column with the class or an alias.
            split: Column with the split; may be absent, and a cell may be empty.
            group: Column with the group; may be absent, and a cell may be empty.
            root: The folder that holds all images; the table's own folder by default.

        All other columns become the examples' metadata.

        Raises:
            DataError: The table cannot be read, is empty, lacks a column, or lists images that are missing or
                lie outside `root`.
            UnknownLabelError: A label is not one of the classes.
        """
        from vlm_tune.data.table import Columns, read_table

        columns = Columns(image=image, label=label, split=split, group=group)
        examples, splits = read_table(path, columns=columns, root=root)
        return cls(examples, task=task, splits=splits)

    @property
    def task(self) -> Task:
        """The question that the photos answer."""
        return self._task

    @property
    def examples(self) -> tuple[Example, ...]:
        """The examples, in order."""
        return self._examples

    @property
    def splits(self) -> Mapping[str, SplitName]:
        """Example id to split; ids without one are absent."""
        return MappingProxyType(self._splits)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The examples' ids, in order."""
        return tuple(example.id for example in self._examples)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The examples' classes, in order."""
        return tuple(example.label for example in self._examples)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits over the task, ids, labels, groups and splits; no image is read."""
        rows = sorted((e.id, e.label, e.group, self._splits.get(e.id)) for e in self._examples)
        content = json.dumps([self._task.fingerprint, rows], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def train(self) -> Dataset:
        """The examples to train on; raises `SplitError` where there are none."""
        return self._only("train")

    @property
    def validation(self) -> Dataset:
        """The examples to choose settings on; raises `SplitError` where there are none."""
        return self._only("validation")

    @property
    def test(self) -> Dataset:
        """The examples to judge on; raises `SplitError` where there are none."""
        return self._only("test")

    def has_split(self, name: SplitName) -> bool:
        """Return whether any example belongs to a split."""
        return name in self._splits.values()

    def split_of(self, example_id: str) -> SplitName | None:
        """Return the split of an example, or None."""
        self.by_id(example_id)
        return self._splits.get(example_id)

    def by_id(self, example_id: str) -> Example:
        """Return the example with an id.

        Raises:
            DataError: There is none; the error lists the nearest ids.
        """
        require_ids([example_id], known=self._by_id)
        return self._by_id[example_id]

    def split(
        self,
        *,
        test: float = 0.25,
        validation: float = 0.0,
        seed: int = 0,
        stratify: bool = True,
        grouped: bool | None = None,
    ) -> Dataset:
        """Assign every example to training, validation or test.

        Args:
            test: Share of the examples to judge on.
            validation: Share of the examples to choose settings on.
            seed: Another seed gives another split; the same one gives the same split on every machine.
            stratify: Cut every class in the same proportions.
            grouped: Keep each group in one split; by default when any example has a group.

        Raises:
            SplitError: The dataset is split already, the shares are impossible, a class is too small to be on
                every side, or `grouped` is asked for and there are no groups.
        """
        if self._splits:
            raise SplitError("this dataset is split already; read it without splits, or move ids with with_splits()")
        shares = splitting.split_fractions(test=test, validation=validation)
        groups = {example.id: example.group for example in self._examples if example.group is not None}
        if grouped and not groups:
            raise SplitError("grouped=True, but no example has a group; read the dataset with group=...")
        strata = {example.id: example.label if stratify else "" for example in self._examples}
        if groups and grouped is not False:
            return self._part(self._examples, splitting.split_grouped(strata, groups, shares, seed=seed))
        return self._part(self._examples, splitting.split_stratified(strata, shares, seed=seed))

    def subset(self, n: int, *, seed: int = 0) -> Dataset:
        """Return `n` examples with the proportions of classes and splits kept.

        Subsets are nested: with one seed, a larger subset holds every smaller one. Each class is there as
        soon as `n` allows.

        Raises:
            DataError: `n` is not between 1 and the number of examples.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"cannot take {n} of {len(self)} examples")
        strata = {e.id: f"{self._splits.get(e.id, '')}/{e.label}" for e in self._examples}
        chosen = set(splitting.nested_order(strata, seed=seed)[:n])
        return self.filter(lambda example: example.id in chosen)

    def without(self, ids: Collection[str]) -> Dataset:
        """Return the dataset without some examples.

        Raises:
            DataError: An id is unknown, or nothing would be left.
        """
        require_ids(ids, known=self._by_id)
        dropped = set(ids)
        return self.filter(lambda example: example.id not in dropped)

    def filter(self, predicate: Callable[[Example], bool]) -> Dataset:
        """Return the examples for which `predicate` is true.

        Raises:
            DataError: There are none, or a class to be evaluated would lose its last training example.
        """
        return self._part([example for example in self._examples if predicate(example)], self._splits)

    def with_splits(self, splits: Mapping[str, SplitName]) -> Dataset:
        """Return the dataset with some examples moved to other splits.

        Raises:
            DataError: An id is unknown, or a class to be evaluated would lose its last training example.
        """
        require_ids(splits, known=self._by_id)
        return self._part(self._examples, {**self._splits, **splits})

    def relabel(self, labels: Mapping[str, str]) -> Dataset:
        """Return the dataset with some examples' classes corrected.

        Raises:
            DataError: An id is unknown.
            UnknownLabelError: A label is not one of the classes.
        """
        require_ids(labels, known=self._by_id)
        examples = [
            with_class(example, self._task, label=labels.get(example.id, example.label)) for example in self._examples
        ]
        return self._part(examples, self._splits)

    def with_task(self, task: Task) -> Dataset:
        """Return the same examples under another question; labels must be classes or aliases of it.

        Raises:
            UnknownLabelError: A label is not one of the new task's classes.
        """
        return Dataset(self._examples, task=task, splits=self._splits)

    def show(self) -> None:
        """Show how many examples each class has in each split."""
        table = self._table()
        show(table, html=to_html(table))

    def frame(self) -> pd.DataFrame:
        """Return a row for each example: `id`, `label`, `split`, `group` and `image` (a path or None)."""
        import pandas as pd

        rows = [
            (
                e.id,
                e.label,
                self._splits.get(e.id),
                e.group,
                str(e.image) if isinstance(e.image, Path) else None,
            )
            for e in self._examples
        ]
        return pd.DataFrame(rows, columns=["id", "label", "split", "group", "image"])

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self._examples[index]

    def __repr__(self) -> str:
        sizes = Counter(self._splits.values())
        parts = [f"{len(self)} examples", f"{len(set(self.labels))} classes"]
        parts += [f"{name} {sizes[name]}" for name in SPLITS if sizes[name]]
        return f"Dataset({', '.join(parts)})"

    @cached_property
    def _by_id(self) -> dict[str, Example]:
        return {example.id: example for example in self._examples}

    def _only(self, name: SplitName) -> Dataset:
        if not self.has_split(name):
            ask = "validation=0.1" if name == "validation" else "test=0.25"
            raise SplitError(f"this dataset has no {name} split; call split({ask}), or read split folders")
        return self.filter(lambda example: self._splits.get(example.id) == name)

    def _part(self, examples: Sequence[Example], splits: Mapping[str, SplitName]) -> Dataset:
        # Around __init__: a part may well hold one class only, and its labels are classes already.
        part = object.__new__(Dataset)
        part._task = self._task
        part._examples = tuple(examples)
        part._splits = {e.id: splits[e.id] for e in part._examples if e.id in splits}
        check(part._examples, part._splits, part._task)
        return part

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        columns = [name for name in SPLITS if self.has_split(name)]
        counts = Counter((e.label, self._splits.get(e.id)) for e in self._examples)
        table = Table("class", title=f"{len(self)} examples", title_justify="left")
        for name in (*columns, "all"):
            table.add_column(name, justify="right")
        totals = Counter(self.labels)
        for label in self._task.classes:
            table.add_row(Text(label), *(str(counts[label, name]) for name in columns), str(totals[label]))
        return table
