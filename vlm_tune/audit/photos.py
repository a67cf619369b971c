"""Which photos are audited, whether everything is about the same ones, and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import Embedder, EmbeddingFunction, as_embedder, default_embedder
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Evaluation
from vlm_tune.leakage.gathering import gather
from vlm_tune.records import Example
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["audited", "embedded"]

FEWEST = 4
"""Photos below which nothing can be learnt about labels."""


def audited(evaluations: Sequence[Evaluation], data: Dataset | None) -> tuple[tuple[Example, ...], Task]:
    """Return the photos to audit with their labels, and the question.

    Raises:
        EvaluationError: There is nothing to audit, or the evaluations and the data do not fit together.
    """
    if data is None and not evaluations:
        raise EvaluationError("there is nothing to audit: give evaluations, or data=, or both")
    names = [one.name for one in evaluations]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise EvaluationError(f"{twice[0]} is there twice; two runs of one system are no two witnesses")
    if data is not None:
        examples, task = data.examples, data.task
    else:
        first = evaluations[0]
        task = first.task or Task(prompt="?", classes=first.classes, multi_label=first.multi_label)
        examples = tuple(_examples(first))
    for evaluation in evaluations:
        _require_same(evaluation, examples, task, all_of_them=data is None)
    if len(examples) < FEWEST:
        raise EvaluationError(f"{len(examples)} photos are too few to learn about their labels; {FEWEST} are the least")
    return examples, task


def embedded(
    examples: Sequence[Example], embedder: Embedder | EmbeddingFunction | None, cache_dir: Path | str | None
) -> tuple[tuple[Example, ...], NDArray[np.float32], dict[str, str]]:
    """Return the photos with their embeddings; those that cannot be read have none, and the reason instead.

    Raises:
        EvaluationError: Hardly a photo can be read.
    """
    chosen = default_embedder() if embedder is None else as_embedder(embedder)
    gathered = gather(examples, chosen, cache_dir=None if cache_dir is None else Path(cache_dir))
    if len(gathered) < FEWEST:
        why = next(iter(gathered.unreadable.values()), "")
        raise EvaluationError(f"only {len(gathered)} of {len(examples)} photos can be read: {why}")
    return gathered.examples, gathered.vectors, gathered.unreadable


def _examples(evaluation: Evaluation) -> list[Example]:
    rows = evaluation.table.select(["example_id", "truth", "group", "image"]).to_pylist()
    return [
        Example(
            id=row["example_id"],
            image=Path(row["image"]) if row["image"] else b"",
            label=row["truth"],
            group=row["group"],
        )
        for row in rows
    ]


def _require_same(evaluation: Evaluation, examples: Sequence[Example], task: Task, *, all_of_them: bool) -> None:
    name, labels = evaluation.name, {example.id: example.label for example in examples}
    if set(evaluation.classes) != set(task.classes) or evaluation.multi_label != task.multi_label:
        raise EvaluationError(f"{name} answered another question: its classes are {', '.join(evaluation.classes)}")
    truths = evaluation.truths
    if strange := [one for one in truths if one not in labels]:
        where = "the other evaluations have" if all_of_them else "data has"
        raise EvaluationError(f"{name} is about other photos; {where} no {_some(strange)}")
    if all_of_them and (missing := [one for one in labels if one not in truths]):
        raise EvaluationError(f"{name} is about other photos; it has no {_some(missing)}")
    if changed := [one for one, label in truths.items() if label != labels[one]]:
        raise EvaluationError(f"{name} was measured with other labels for {_some(changed)}; evaluate it on this data")


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
