"""Answers made elsewhere, as rows of an evaluation's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlm_tune.errors import EvaluationError, UnknownLabelError
from vlm_tune.evaluation.columns import row_of
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

__all__ = ["Named", "given_rows"]

Named = str | Iterable[str]
"""A class, or classes: written out such as `crack, dent`, or one by one."""


def given_rows(
    name: str, task: Task, truth: Mapping[str, Named], answers: Mapping[str, Named]
) -> Iterator[dict[str, Any]]:
    """Yield a row per truth: an answer that is no class is unparseable, one that is not there a failure.

    Raises:
        EvaluationError: There is an answer without a truth, or a list of classes where one class is expected.
        UnknownLabelError: A truth is not one of the classes.
    """
    if stray := [example_id for example_id in answers if example_id not in truth]:
        raise EvaluationError(f"{name} answered ids that have no truth: {_some(stray)}")
    for example_id, named in truth.items():
        example = Example(id=example_id, image=b"", label=_label(named, task, where=f"truth of {example_id!r}"))
        prediction = _prediction(example_id, answers.get(example_id), task)
        yield row_of(example, prediction, task.classes, content_hash=None)


def _label(named: Named, task: Task, *, where: str) -> str:
    if isinstance(named, str):
        return task.canonical(named, where=where)
    if not task.multi_label:
        raise EvaluationError(
            f"{where}: {list(named)} is a list; pass multi_label=True where several classes may apply"
        )
    chosen = list(named)
    if unknown := [label for label in chosen if label not in task.classes]:
        raise UnknownLabelError(unknown[0], task.classes, where=where)
    return task.join(chosen)


def _prediction(example_id: str, named: Named | None, task: Task) -> Prediction:
    if named is None:
        return Prediction(example_id=example_id, outcome="failed", error="no answer was given")
    if not isinstance(named, str):
        named = list(named)
    raw = named if isinstance(named, str) else ", ".join(named)
    try:
        label = _label(named, task, where=f"answer to {example_id!r}")
    except UnknownLabelError:
        reason = "the answer is none of the classes"
        return Prediction(example_id=example_id, outcome="unparseable", raw=raw, error=reason)
    return Prediction(example_id=example_id, outcome="answered", label=label, raw=raw)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
