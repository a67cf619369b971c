"""Asking a predictor about every example, once, whatever happens on the way."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vlm_tune import _processes
from vlm_tune._console import Bar, progress
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, ImageError
from vlm_tune.evaluation.columns import row_of, table_of
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.journal import Entry, Journal, KeyIndex, journal_key
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

    @_processes.by_one
    def run(self, predictor: Predictor) -> Evaluation:
        """Ask about every example that has no answer yet, and return all answers.

        Interrupting it, or an exception of the predictor, loses nothing that was answered.

        Raises:
            EvaluationError: The predictor gives an answer it was not asked for, or that is no class.
            StorageError: The disk is full, or another run uses the same journal; answers on disk stay.
            VlmTuneError: What the predictor raises when its set-up is broken.
        """
        with self._journal(predictor) as journal:
            return _Run(self, self._with_state(predictor), journal).finish()

    def _with_state(self, predictor: Predictor) -> Predictor:
        """Give a predictor that keeps notes of its own, such as the names of its batch jobs, a folder for them."""
        with_state = getattr(predictor, "with_state", None)
        if self.run_dir is None or with_state is None:
            return predictor
        kept: Predictor = with_state(self.run_dir / "state" / predictor.fingerprint)
        return kept

    def _journal(self, predictor: Predictor) -> Journal:
        if self.run_dir is None:
            return Journal(None)
        slug = re.sub(r"[^a-z0-9]+", "-", predictor.name.lower()).strip("-")[:60] or "predictor"
        return Journal(self.run_dir / "predictions" / f"{slug}-{predictor.fingerprint[:8]}.jsonl")


class _Run:
    """One predictor on one dataset."""

    def __init__(self, evaluator: Evaluator, predictor: Predictor, journal: Journal) -> None:
        self.evaluator = evaluator
        self.dataset = evaluator.dataset
        self.task = evaluator.dataset.task
        self.predictor = predictor
        self.journal = journal
        self.fingerprints = self.task.fingerprint, predictor.fingerprint
        self.contents = bytearray()
        self.unreadable: dict[int, str] = {}
        self.repeats: set[int] = set()
        self.right = self.counted = 0
        self.wall_s = 0.0

    def finish(self) -> Evaluation:
        """Ask what is open, then put all answers into columns."""
        # First, because it takes memory for a moment, as the columns do.
        dataset_fingerprint = self.dataset.fingerprint
        with progress(_plain(f"Evaluate {self.predictor.name}"), total=len(self.dataset)) as bar:
            self._ask(self._open_questions(bar), bar)
        return Evaluation(
            name=self.predictor.name,
            classes=self.task.classes,
            table=table_of(self._rows()),
            predictor_fingerprint=self.predictor.fingerprint,
            dataset_fingerprint=dataset_fingerprint,
            task=self.task,
            wall_s=self.wall_s,
            min_coverage=self.evaluator.min_coverage,
            multi_label=self.task.multi_label,
            prompt_note=getattr(self.predictor, "prompt_note", ""),
            possibly_billed=getattr(self.predictor, "possibly_billed", 0),
        )

    def _open_questions(self, bar: Bar) -> dict[str, int]:
        """Return what to ask about, id to place: the first of each image that has no answer but failures."""
        waiting: dict[str, int] = {}
        seen = KeyIndex()
        for place, example in enumerate(self.dataset):
            try:
                self.contents += _content(example)
            except ImageError as error:
                self.contents += bytes(32)
                self.unreadable[place] = str(error)
                bar.advance()
                continue
            key = self._key(place)
            entry = self.journal.get(key)
            if entry is not None and entry.prediction.outcome != "failed":
                self._count(entry.prediction, example, bar)
            elif key in seen:
                bar.advance()
            else:
                waiting[example.id] = place
            if key in seen:
                self.repeats.add(place)
            seen[key] = place
        return waiting

    def _ask(self, waiting: dict[str, int], bar: Bar) -> None:
        """Ask, and write down every answer the moment it arrives."""
        if not waiting:
            return
        before, examples = time.perf_counter(), self.dataset.examples
        answers = self.predictor.predict([examples[place] for place in waiting.values()], self.task)
        with ExitStack() as stack:
            if isinstance(answers, Generator):
                # A full disk ends the loop early: the predictor must stop then, not when it is collected.
                stack.callback(answers.close)
            for prediction in answers:
                place = waiting.pop(prediction.example_id, None)
                if place is None:
                    stray = f"{prediction.example_id!r} twice or without being asked"
                    raise EvaluationError(f"{self.predictor.name} answered {stray}")
                checked = self._check(prediction)
                now = time.perf_counter()
                self.journal.append(self._key(place), checked, elapsed_s=now - before)
                before = now
                self._count(checked, examples[place], bar)

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

    def _key(self, place: int) -> str:
        return journal_key(self._content_hash(place), *self.fingerprints)

    def _content_hash(self, place: int) -> str:
        return self.contents[32 * place : 32 * place + 32].hex()

    def _count(self, prediction: Prediction, example: Example, bar: Bar) -> None:
        if prediction.outcome != "failed":
            self.counted += 1
            self.right += prediction.label == example.label
            bar.note(f"accuracy {self.right / self.counted:.1%}")
        bar.advance()

    def _rows(self) -> Iterator[dict[str, Any]]:
        """Yield a row per example; time and cost of an image that occurs again count once."""
        for place, example in enumerate(self.dataset):
            if place in self.unreadable:
                missing = Prediction(example_id=example.id, outcome="failed", error=self.unreadable[place])
                yield row_of(example, missing, self.task.classes, content_hash=None)
                continue
            prediction = self._answer(example, self.journal.get(self._key(place)), again=place in self.repeats)
            yield row_of(example, prediction, self.task.classes, content_hash=self._content_hash(place)[:32])

    def _answer(self, example: Example, entry: Entry | None, *, again: bool) -> Prediction:
        if entry is None:
            return Prediction(example_id=example.id, outcome="failed", error="the predictor gave no answer")
        prediction = entry.prediction
        if again:
            cost = None if prediction.cost_usd is None else 0.0
            return prediction.model_copy(update={"latency_s": None, "usage": None, "cost_usd": cost})
        self.wall_s += entry.elapsed_s
        return prediction


def _content(example: Example) -> bytes:
    # The example would remember its hash, and a million of them add up.
    known = example.__dict__.get("content_hash")
    return bytes.fromhex(known) if known else hashlib.sha256(example.read()).digest()


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
