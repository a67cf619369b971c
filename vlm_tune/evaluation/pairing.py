"""Bringing two evaluations side by side, or refusing to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.evaluation import Evaluation

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["pair"]


def pair(candidate: Evaluation, reference: Evaluation) -> pa.Table:
    """Return a row per example with both sides' answers and the tag; the tag is null where a side failed.

    Raises:
        EvaluationError: Classes, examples, truths or image contents differ, the error names the first ids; or only
            one side may name several classes.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    names = f"{candidate.name} and {reference.name}"
    if candidate.multi_label != reference.multi_label:
        several = candidate if candidate.multi_label else reference
        raise EvaluationError(f"{names} were asked different things; only {several.name} may name several classes")
    for mine, other in ((candidate, reference), (reference, candidate)):
        if only := sorted(set(mine.classes) - set(other.classes)):
            raise EvaluationError(
                f"{names} answered from other classes; only {mine.name} has {_some(only)}: evaluate both with one task"
            )
        if only := sorted(set(mine.example_ids) - set(other.example_ids)):
            raise EvaluationError(
                f"{names} have other examples; only {mine.name} has {_some(only)}: evaluate both on one dataset"
            )
    if candidate.multi_label and candidate.classes != reference.classes:
        raise EvaluationError(f"{names} list the same classes in another order; evaluate both with one task")
    left, right = candidate.table, reference.table
    right = right.take(pc.index_in(left["example_id"], value_set=right["example_id"].combine_chunks()))
    for column, what in (("truth", "have other truths"), ("content_hash", "saw other images")):
        differs = pc.fill_null(pc.not_equal(left[column], right[column]), False)
        if pc.any(differs).as_py():
            where = left["example_id"].filter(differs).to_pylist()
            raise EvaluationError(f"{names} {what} for {_some(where)}; evaluate both on one dataset")
    sides = {"candidate": left, "reference": right}
    first, second = (pc.fill_null(pc.equal(side["label"], side["truth"]), False).to_numpy() for side in sides.values())
    tag = np.select(
        [first & second, first, second],
        ["both_right", "candidate_only", "reference_only"],
        default="both_wrong",
    )
    failed = pc.or_(*(pc.equal(side["outcome"], "failed") for side in sides.values())).to_numpy()
    columns = {name: left[name] for name in ("example_id", "truth", "group", "image")}
    for name, side in sides.items():
        columns |= {f"{name}_{column}": side[column] for column in ("outcome", "label", "raw")}
    return pa.table({**columns, "tag": pa.array(tag, type=pa.string(), mask=failed)})


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
