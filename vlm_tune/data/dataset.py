"""The dataset: an immutable sequence of examples, their task, and who belongs to which split."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_tune._console import Shown
from vlm_tune.data import splitting
from vlm_tune.data.balance import Balance, measure
from vlm_tune.data.checks import check, require_ids, with_class
from vlm_tune.data.dealing import split_grouped
from vlm_tune.data.display import as_frame, as_table
from vlm_tune.data.iterative import nested_iterative, split_iterative
from vlm_tune.data.quarantine import Quarantine, inspect
from vlm_tune.data.readers import Readers
from vlm_tune.data.splitting import SplitName
from vlm_tune.data.strata import strata, strata_of
from vlm_tune.errors import DataError, SplitError, UnknownLabelError
from vlm_tune.records import Example
from vlm_tune.task import Task

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    from rich.console import RenderableType

__all__ = ["Dataset"]


class Dataset(Shown, Readers):
    """Labelled photos of one task, each in at most one split; every change gives a new dataset.

    Args:
        examples: The photos; a label may be a class or one of its aliases.
        task: The question they answer.
        splits: Example id to `train`, `validation` or `test`; ids that are left out belong to no split.

    Raises:
        DataError: There is no example, an id occurs twice, a split names an unknown id, all examples have one
            class, or a class to be evaluated has no training example.
        UnknownLabelError: A label is not one of the task's classes; the error lists the nearest.

    Examples:
        >>> task = Task(prompt="Which one?", classes=("crack", "dent"))
        >>> photos = [Example(id=f"{i}", image=b"...", label=task.classes[i % 2]) for i in range(8)]
        >>> data = Dataset(photos, task=task).split(test=0.25, seed=0)
        >>> data
        Dataset(8 examples, 2 classes, train 6, test 2)
        >>> len(data.test), data.test.has_split("train")
        (2, False)
    """

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
            stratify: Cut every class in the same proportions; for a multi-label task by iterative
                stratification (Sechidis et al. 2011).
            grouped: Keep each group in one split; by default when any example has a group.

        Raises:
            SplitError: The dataset is split already, the shares are impossible, a class is too small to be on
                every side, or `grouped` is asked for and there are no groups.
        """
        if self._splits:
            raise SplitError(
                "this dataset is split already; move ids with with_splits(), or start over from "
                "Dataset(data.examples, task=data.task)"
            )
        shares = splitting.split_fractions(test=test, validation=validation)
        groups = {example.id: example.group for example in self._examples if example.group is not None}
        if grouped and not groups:
            raise SplitError("grouped=True, but no example has a group; read the dataset with group=...")
        cells = {example.id: strata_of(example, self._task) if stratify else ("",) for example in self._examples}
        if groups and grouped is not False:
            return self._part(self._examples, split_grouped(cells, groups, shares, seed=seed))
        if self._task.multi_label and stratify:
            return self._part(self._examples, split_iterative(cells, shares, seed=seed))
        labels = {example_id: of[0] for example_id, of in cells.items()}
        return self._part(self._examples, splitting.split_stratified(labels, shares, seed=seed))

    def balance(self, *, test: float | None = None, validation: float = 0.0) -> Balance:
        """Return the share of each class that each split has, and how many groups lie in one split.

        Args:
            test: The share that was asked for the test split; by default shares are compared with those that
                the splits have of all examples.
            validation: The share that was asked for the validation split, beside `test`.

        Raises:
            SplitError: The dataset is not split, or the shares are impossible.
        """
        return measure(self, None if test is None else splitting.split_fractions(test=test, validation=validation))

    def subset(self, n: int, *, seed: int = 0) -> Dataset:
        """Return `n` examples with the proportions of classes and splits kept.

        Subsets are nested: with one seed, a larger subset holds every smaller one. Each class is there as
        soon as `n` allows.

        Raises:
            DataError: `n` is not between 1 and the number of examples.
        """
        if not 1 <= n <= len(self):
            raise DataError(f"cannot take {n} of {len(self)} examples")
        return self._keep(self._nested(seed)[:n])

    def limit(self, per_class: int | Mapping[str, int], *, seed: int = 0) -> Dataset:
        """Return at most so many examples of each class, with the proportions of the splits kept.

        With one seed, a larger number keeps every example of a smaller one. In a multi-label task an example
        counts for each of its classes and stays only while none of them has its number, so fewer may stay.

        Args:
            per_class: A number for every class, or class to number; classes that are left out stay whole. In a
                multi-label task `none` counts as a class.
            seed: Another seed chooses other examples.

        Raises:
            DataError: A number is less than 1.
            UnknownLabelError: A class is not one of the task's.
        """
        known = strata(self._task)
        room = dict.fromkeys(known, per_class) if isinstance(per_class, int) else dict(per_class)
        for label, number in room.items():
            if label not in known:
                raise UnknownLabelError(label, known, where="limit")
            if number < 1:
                raise DataError(f"limit={number} leaves nothing of {label!r}; leave the class out with filter()")
        chosen: list[str] = []
        for example_id in self._nested(seed):
            counted = [label for label in strata_of(self._by_id[example_id], self._task) if label in room]
            if all(room[label] for label in counted):
                chosen.append(example_id)
                room.update({label: room[label] - 1 for label in counted})
        return self._keep(chosen)

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

    def quarantine(self) -> Quarantine:
        """Decode every photo once, in threads, and return the list of those that do not decode.

        `data.without(data.quarantine().ids)` leaves them out.
        """
        return Quarantine(dataset_fingerprint=self.fingerprint, num_examples=len(self), photos=inspect(self._examples))

    def to_hf(self) -> datasets.Dataset | datasets.DatasetDict:
        """Return the examples as a `datasets.Dataset`, or as a `DatasetDict` with one for each split.

        The columns are `id`, `image` (`Image`), `label` (`ClassLabel`, for a multi-label task a list of it), `group`
        and the metadata, as far as Arrow has one type for a key's values. Images in files are referred to by
        path; `save_to_disk` and `push_to_hub` put them in.

        Raises:
            SplitError: Some examples are in a split and others are not.
        """
        from vlm_tune.data.hugging_face_export import export

        return export(self)

    def _rich(self) -> RenderableType:
        """Draw how many examples each class has in each split; a photo with two classes counts for both."""
        return as_table(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each example: `id`, `label`, `split`, `group` and `image` (a path or None).

        For a multi-label task a column for each class says whether the photo shows it.
        """
        return as_frame(self)

    def _nested(self, seed: int) -> list[str]:
        """Return the ids in an order whose every beginning keeps the proportions of classes and splits."""
        cells = {
            e.id: [f"{self._splits.get(e.id, '')}/{label}" for label in strata_of(e, self._task)]
            for e in self._examples
        }
        if self._task.multi_label:
            order = nested_iterative(cells, seed=seed)
        else:
            order = splitting.nested_order({example_id: of[0] for example_id, of in cells.items()}, seed=seed)
        # Training comes first with each class, so that no beginning has a class to judge on and not to learn.
        front: dict[str, str] = {}
        for example_id in order:
            if self._splits.get(example_id) == "train":
                for cell in cells[example_id]:
                    front.setdefault(cell, example_id)
        return list(dict.fromkeys([*front.values(), *order]))

    def _keep(self, ids: Collection[str]) -> Dataset:
        kept = set(ids)
        return self.filter(lambda example: example.id in kept)

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
