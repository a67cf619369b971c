"""What a dataset holds: examples in order, their task, and who belongs to which split."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import overload

from vlm_tune.data.checks import check, require_ids, with_class
from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.errors import DataError
from vlm_tune.records import Example
from vlm_tune.task import Task

__all__ = ["Examples"]


class Examples(Sequence[Example]):
    """The part of a `Dataset` that others build on; `Dataset` says what the arguments are."""

    def __init__(
        self, examples: Sequence[Example], *, task: Task, splits: Mapping[str, SplitName] | None = None
    ) -> None:
        self._task = task
        self._examples = tuple(with_class(example, task) for example in examples)
        self._splits = dict(splits or {})
        check(self._examples, self._splits, task)
        if len(classes := set(self.labels)) == 1:
            which = "the only example is" if len(self) == 1 else f"all {len(self)} examples are"
            raise DataError(f"{which} labelled {classes.pop()!r}; a dataset needs examples of two classes")

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
        shown = {label for example in self._examples for label in self._task.members(example.label)}
        parts = [f"{len(self)} examples", f"{len(shown)} classes"]
        parts += [f"{name} {sizes[name]}" for name in SPLITS if sizes[name]]
        return f"Dataset({', '.join(parts)})"

    @cached_property
    def _by_id(self) -> dict[str, Example]:
        return {example.id: example for example in self._examples}
