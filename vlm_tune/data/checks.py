"""What makes a dataset valid, whoever built it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.errors import DataError, SplitError, nearest
from vlm_tune.records import Example
from vlm_tune.task import Task

__all__ = ["check", "require_ids", "with_class"]


def check(examples: Sequence[Example], splits: Mapping[str, SplitName], task: Task) -> None:
    """Check that there are examples, that ids are unique, and that splits fit the examples.

    Raises:
        DataError: There is no example, an id occurs twice, a split names an unknown id, or a class to be
            evaluated has no training example.
        SplitError: A split has a name of its own.
    """
    if not examples:
        raise DataError("no example is left; a dataset needs at least one")
    counts = Counter(example.id for example in examples)
    if len(counts) < len(examples):
        twice = [example_id for example_id, count in counts.items() if count > 1]
        raise DataError(f"{len(twice)} ids occur more than once (first: {twice[0]!r}); ids must be unique")
    require_ids(splits, known=counts)
    if wrong := set(splits.values()) - set(SPLITS):
        raise SplitError(f"{min(map(str, wrong))!r} is not a split; the splits are {', '.join(SPLITS)}")
    _check_training_covers(examples, splits, task)


def require_ids(ids: Iterable[str], *, known: Collection[str]) -> None:
    """Raise a `DataError` that lists the nearest ids when one is unknown."""
    unknown = [example_id for example_id in ids if example_id not in known]
    if unknown:
        close = nearest(unknown[0], known)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        more = f" and {len(unknown) - 1} more" if unknown[1:] else ""
        raise DataError(f"no example has the id {unknown[0]!r}{more}{hint}")


def with_class(example: Example, task: Task, *, label: str | None = None) -> Example:
    """Return the example with a label, by default its own, as the task spells it.

    Raises:
        UnknownLabelError: The label is not one of the task's classes or aliases.
    """
    name = task.canonical(example.label if label is None else label, where=f"example {example.id!r}")
    return example if name == example.label else example.model_copy(update={"label": name})


def _check_training_covers(examples: Sequence[Example], splits: Mapping[str, SplitName], task: Task) -> None:
    classes: dict[SplitName | None, set[str]] = {name: set() for name in (*SPLITS, None)}
    for example in examples:
        classes[splits.get(example.id)].update(task.members(example.label))
    trained = classes["train"]
    for name in ("validation", "test"):
        lacking = sorted(classes[name] - trained) if trained else []
        if lacking:
            raise DataError(
                f"the {name} split has classes that training lacks: {', '.join(map(repr, lacking))}; "
                f"add training photos of them, or remove their {name} photos"
            )
