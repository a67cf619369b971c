"""Asking a predictor about every example, once, whatever happens on the way."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vlm_tune._console import Bar, progress
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, ImageError
from vlm_tune.evaluation.columns import row_of, table_of
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.journal import Journal, MemoryJournal, journal_key
from vlm_tune.predictors import Predictor
from vlm_tune.records import Example, Prediction

__all__ = ["Evaluator"]


class Evaluator:
    """Evaluates predictors on one dataset.

    With a `run_dir` every answer is on disk the moment it arrives, under the image's content, the task and
    the predictor: a run that was killed goes on where it stopped, a run that is done costs nothing again, and
    only failures are asked anew. Examples with the same image are asked once.

    Args:
        dataset: The examples, usually `data.test`.
        run_dir: Where answers are kept, in `predictions/`; without it they are not.
        min_coverage: Share of examples that must not fail for there to be an accuracy.

    Raises:
        EvaluationError: `min_coverage` is not a share.

    Example:
        >>> from vlm_tune.predictors import Baseline
        >>> from vlm_tune.testing import tiny_dataset
        >>> data = tiny_dataset(8)
        >>> print(Evaluator(data.test).run(Baseline.majority(data.train)).accuracy.n)
        6
    """

    def __init__(self, dataset: Dataset, *, run_dir: Path | str | None = None, min_coverage: float = 0.95) -> None:
        if not 0 <= min_coverage <= 1:
            raise EvaluationError(f"min_coverage is a share between 0 and 1, not {min_coverage}")
        self.dataset = dataset
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.min_coverage = min_coverage

    def run(self, predictor: Predictor) -> Evaluation:
        """Ask about every example that has no answer yet, and return all answers.

        Interrupting it, or an exception of the predictor, loses nothing that was answered.

        Raises:
            EvaluationError: The predictor gives an answer it was not asked for, or that is no class.
            StorageError: The disk is full, or another run uses the same journal; answers on disk stay.
            VlmTuneError: What the predictor raises when its set-up is broken.
        """
        with self._journal(predictor) as journal:
            return _Run(self, predictor, journal).finish()

    def _journal(self, predictor: Predictor) -> Journal | MemoryJournal:
        if self.run_dir is None:
            return MemoryJournal()
        slug = re.sub(r"[^a-z0-9]+", "-", predictor.name.lower()).strip("-")[:60] or "predictor"
        return Journal(self.run_dir / "predictions" / f"{slug}-{predictor.fingerprint[:8]}.jsonl")


class _Run:
    """One predictor on one dataset."""

    def __init__(self, evaluator: Evaluator, predictor: Predictor, journal: Journal | MemoryJournal) -> None:
        self.evaluator = evaluator
        self.dataset = evaluator.dataset
        self.task = evaluator.dataset.task
        self.predictor = predictor
        self.journal = journal
        self.fingerprints = self.task.fingerprint, predictor.fingerprint
        self.unreadable: dict[str, str] = {}
        self.right = self.counted = 0
        self.wall_s = 0.0

    def finish(self) -> Evaluation:
        """Ask what is open, then put all answers into columns."""
        with progress(_plain(f"Evaluate {self.predictor.name}"), total=len(self.dataset)) as bar:
            waiting = self._open_questions(bar)
            if waiting:
                self._ask(waiting, bar)
        return Evaluation(
            name=self.predictor.name,
            classes=self.task.classes,
            table=table_of(self._rows()),
            predictor_fingerprint=self.predictor.fingerprint,
            dataset_fingerprint=self.dataset.fingerprint,
            task=self.task,
            wall_s=self.wall_s,
            min_coverage=self.evaluator.min_coverage,
            multi_label=self.task.multi_label,
        )

    def _open_questions(self, bar: Bar) -> dict[str, Example]:
        """Return the examples to ask about: the first of each image that has no answer but failures."""
        waiting: dict[str, Example] = {}
        seen: set[str] = set()
        for example in self.dataset:
            try:
                key = self._key(example)
            except ImageError as error:
                self.unreadable[example.id] = str(error)
                bar.advance()
                continue
            entry = self.journal.get(key)
            if entry is not None and entry.prediction.outcome != "failed":
                self._count(entry.prediction, example, bar)
            elif key in seen:
                bar.advance()
            else:
                waiting[example.id] = example
            seen.add(key)
        return waiting

    def _ask(self, waiting: dict[str, Example], bar: Bar) -> None:
        """Ask, and write down every answer the moment it arrives."""
        before = time.perf_counter()
        answers = self.predictor.predict(list(waiting.values()), self.task)
        with ExitStack() as stack:
            if isinstance(answers, Generator):
                # A full disk ends the loop early: the predictor must stop then, not when it is collected.
                stack.callback(answers.close)
            for prediction in answers:
                example = waiting.pop(prediction.example_id, None)
                if example is None:
                    stray = f"{prediction.example_id!r} twice or without being asked"
                    raise EvaluationError(f"{self.predictor.name} answered {stray}")
                checked = self._check(prediction)
                now = time.perf_counter()
                self.journal.append(self._key(example), checked, elapsed_s=now - before)
                before = now
                self._count(checked, example, bar)

    def _check(self, prediction: Prediction) -> Prediction:
        """Refuse an answer that is no class; a score that is no number makes the example a failure."""
        classes, where = self.task.classes, f"{self.predictor.name}, example {prediction.example_id!r}"
        wrong = "no list of classes in the task's order" if self.task.multi_label else "none of the classes"
        if prediction.label is not None and not self.task.is_answer(prediction.label):
            raise EvaluationError(f"{where}: the answer {prediction.label!r} is {wrong}")
        scores = prediction.scores
        if scores is not None and set(scores) != set(classes):
            raise EvaluationError(f"{where}: scores for {sorted(scores)} instead of {sorted(classes)}")
        if scores is not None and not all(map(math.isfinite, scores.values())):
            reason = "a score is not a finite number"
            return Prediction(example_id=prediction.example_id, outcome="failed", error=reason)
        return prediction

    def _key(self, example: Example) -> str:
        return journal_key(example.content_hash, *self.fingerprints)

    def _count(self, prediction: Prediction, example: Example, bar: Bar) -> None:
        if prediction.outcome != "failed":
            self.counted += 1
            self.right += prediction.label == example.label
            bar.note(f"accuracy {self.right / self.counted:.1%}")
        bar.advance()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row per example; time and cost of an image that occurs again count once."""
        seen: set[str] = set()
        for example in self.dataset:
            reason = self.unreadable.get(example.id)
            key = self._key(example) if reason is None else ""
            entry = self.journal.get(key) if key else None
            if entry is None:
                reason = reason or "the predictor gave no answer"
                prediction = Prediction(example_id=example.id, outcome="failed", error=reason)
            elif key in seen:
                cost = None if entry.prediction.cost_usd is None else 0.0
                changes = {"latency_s": None, "usage": None, "cost_usd": cost}
                prediction = entry.prediction.model_copy(update=changes)
            else:
                prediction = entry.prediction
                self.wall_s += entry.elapsed_s
            seen.add(key)
            content = example.content_hash[:32] if key else None
            yield row_of(example, prediction, self.task.classes, content_hash=content)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
