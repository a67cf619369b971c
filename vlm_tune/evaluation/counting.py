"""From an evaluation's table to counts: which classes are true and which were answered, as sparse matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlm_tune.task import NONE

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["Members", "class_counts", "confusion", "group_codes", "members", "named"]

Members = tuple[Any, Any, "NDArray[np.int64] | None"]
"""Truths and answers, each n x C and sparse, and the groups; only of the examples that are not missing."""


def members(table: pa.Table, classes: Sequence[str], *, multi_label: bool) -> Members:
    """Return which classes are true of each example and which its answer names, and what belongs together.

    Args:
        table: The evaluation's table.
        classes: The C classes.
        multi_label: Whether truths and answers are lists of classes.

    Returns:
        Two sparse matrices of zeros and ones, and a number per group; an example without a group is one by itself.
        None where there are no groups.
    """
    there = _there(table)
    truth, answer = (named(there[column], classes, multi_label=multi_label) for column in ("truth", "label"))
    return truth, answer, group_codes(there["group"])


def class_counts(truth: Any, answer: Any) -> NDArray[np.int64]:
    """Return C x 2 x 2 counts: first whether a class is true, then whether it was answered."""
    import numpy as np

    found, true, said = (
        np.asarray(matrix.sum(axis=0), dtype=np.int64).ravel() for matrix in (truth.multiply(answer), truth, answer)
    )
    neither = truth.shape[0] - true - said + found
    return np.stack([neither, said - found, true - found, found], axis=-1).reshape(-1, 2, 2)


def confusion(table: pa.Table, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return C x (C + 1) counts: rows are truths, columns answers, the last column is no class."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    size, names, there = len(classes), pa.array(classes), _there(table)
    row, column = (
        pc.fill_null(pc.index_in(there[name], value_set=names), size).to_numpy().astype(np.int64)
        for name in ("truth", "label")
    )
    return np.bincount(row * (size + 1) + column, minlength=size * (size + 1)).reshape(size, size + 1).astype(np.int64)


def named(column: pa.ChunkedArray, classes: Sequence[str], *, multi_label: bool) -> Any:
    """Return which classes each label names, n x C and sparse; no label names none."""
    import numpy as np
    from scipy.sparse import csr_array

    places = {label: place for place, label in enumerate(classes)}
    # Labels repeat, so each is taken apart once.
    encoded = column.combine_chunks().dictionary_encode()
    known = [_places(label, places, multi_label) for label in encoded.dictionary.to_pylist()] + [[]]
    codes = encoded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)
    columns = np.array([place for those in known for place in those], dtype=np.int64)
    ends = np.cumsum([0, *map(len, known)])
    by_label = csr_array((np.ones(len(columns)), columns, ends), shape=(len(known), len(places)))
    return by_label[codes]


def _there(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.not_equal(table["outcome"], "failed"))


def _places(label: str, places: dict[str, int], multi_label: bool) -> list[int]:
    if not multi_label:
        return [places[label]]
    return [] if label == NONE else [places[name] for name in label.split(", ")]


def group_codes(column: pa.ChunkedArray) -> NDArray[np.int64] | None:
    """Return a number per group, one of its own for an example without a group; None where there are no groups."""
    import numpy as np

    if column.null_count == len(column):
        return None
    codes = column.combine_chunks().dictionary_encode().indices
    alone = codes.is_null().to_numpy(zero_copy_only=False)
    numbers = codes.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(alone, -1 - np.arange(len(numbers)), numbers)
