"""What to do about leaks: move the copies into training, or drop one side of each pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.errors import DataError, SplitError

__all__ = ["Remedy", "components", "resolve"]

Remedy = Literal["regroup", "drop_train", "drop_test"]
"""Move leaked photos to where their copies are, drop the copies in training, or drop the leaked photos."""


def components(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Return the groups of ids that pairs connect, each sorted, in order of their first id.

    Example:
        >>> components([("a", "b"), ("d", "c"), ("b", "e")])
        (('a', 'b', 'e'), ('c', 'd'))
    """
    group: dict[str, set[str]] = {}
    for first, second in pairs:
        joined = group.get(first, {first}) | group.get(second, {second})
        group.update(dict.fromkeys(joined, joined))
    return tuple(sorted({tuple(sorted(members)) for members in group.values()}))


def resolve(
    dataset: Dataset,
    *,
    leaks: Sequence[tuple[str, str]],
    groups: Iterable[Sequence[str]],
    remedy: Remedy,
) -> Dataset:
    """Return a dataset without the given leaks.

    Args:
        dataset: The dataset that was checked.
        leaks: Pairs of ids; the first is the evaluation side.
        groups: Ids that are copies of each other.
        remedy: `regroup` gives each group to training if it has a member there, to validation otherwise;
            `drop_train` drops the second of each pair, `drop_test` the first.

    Raises:
        DataError: The remedy is none of these, or a class would lose its last training example.
        SplitError: Nothing would be left to evaluate on, or to train on.
    """
    if remedy not in get_args(Remedy):
        raise DataError(f"unknown remedy {remedy!r}; choose one of {', '.join(get_args(Remedy))}")
    if not leaks:
        return dataset
    if remedy == "regroup":
        resolved = dataset.with_splits(_moves(dataset, groups))
    else:
        dropped = {second if remedy == "drop_train" else first for first, second in leaks}
        if len(dropped) == len(dataset):
            raise SplitError(f"{remedy!r} would leave nothing of the dataset")
        resolved = dataset.without(dropped)
    for split in ("train", "validation", "test"):
        if dataset.has_split(split) and not resolved.has_split(split):
            raise SplitError(f"{remedy!r} would leave the {split} split empty; choose another remedy")
    return resolved


def _moves(dataset: Dataset, groups: Iterable[Sequence[str]]) -> dict[str, SplitName]:
    moves: dict[str, SplitName] = {}
    for members in groups:
        home: SplitName = "train" if any(dataset.split_of(member) == "train" for member in members) else "validation"
        moves.update({member: home for member in members if dataset.split_of(member) != home})
    return moves
