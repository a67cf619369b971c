"""Asking a predictor about every example, once, whatever happens on the way."""

from __future__ import annotations

import hashlib
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from vlm_tune import _processes
from vlm_tune._console import Bar, notice, progress
from vlm_tune._spreading import Spreads
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, ImageError, StorageError
from vlm_tune.evaluation.asking import Answer, ask
from vlm_tune.evaluation.columns import row_of, table_of
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.parts import left_over, part_path, take_in
from vlm_tune.journal import Entry, Journal, KeyIndex, journal_key
from vlm_tune.predictors import Predictor
from vlm_tune.records import Example, Prediction

__all__ = ["Evaluator"]


class Evaluator:
    """Evaluates predictors on one dataset.

    With a `run_dir` every answer is on disk the moment it arrives, under the image's content, the task and
    the predictor: a run that was killed goes on where it stopped, a run that is done costs nothing again, and
    only failures are asked anew. Examples with the same image are asked once.

    Of several processes (`torchrun`), each asks a local model about its part of the examples; an API is asked by the
    first alone (see `Predictor`). All get the same result, and it is that of one process.

    Args:
        dataset: The examples, usually `data.test`.
        run_dir: Where answers are kept, in `predictions/`; without it they are not.
        min_coverage: Share of examples that must not fail for there to be an accuracy.

    Raises:
        EvaluationError: `min_coverage` is not a share.

    Examples:
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

    def run(self, predictor: Predictor, *, backend: Spreads | None = None) -> Evaluation:
        """Ask about every example that has no answer yet, and return all answers.

        Interrupting it, or an exception of the predictor, loses nothing that was answered.

        Args:
            predictor: Who is asked.
            backend: Where copies of a local model answer, such as `RayBackend()`; here, for None. The answers come
                here, batch by batch. What one process asks, an API say, is asked here all the same.

        Raises:
            EvaluationError: The predictor gives an answer it was not asked for, or that is no class; or its
                `asked_by` is unknown; or several processes ask different things.
            StorageError: The disk is full, or another run uses the same journal; answers on disk stay.
            BackendError: The backend cannot be reached, or the predictor cannot be sent there.
            VlmTuneError: What the predictor raises when its set-up is broken.
        """
        asked_by = getattr(predictor, "asked_by", "one")
        if asked_by not in ("one", "each", "all"):
            raise EvaluationError(f"{predictor.name}: asked_by is 'one', 'each' or 'all', not {asked_by!r}")
        backend = backend if asked_by == "each" else None
        if _processes.world_size() == 1 or asked_by == "one" or backend is not None:
            return _processes.by_one(self._run)(predictor, in_parts=False, backend=backend)
        self._require_same(predictor, asked_by)
        return self._run(predictor, in_parts=asked_by == "each")

    def _run(self, predictor: Predictor, *, in_parts: bool, backend: Spreads | None = None) -> Evaluation:
        with ExitStack() as stack:
            path = self._journal_path(predictor)
            if in_parts and path is None:
                own = stack.enter_context(tempfile.TemporaryDirectory(prefix="vlm-tune-"))
                path = Path(_processes.same(own), "answers.jsonl")
            bar = stack.enter_context(progress(f"Evaluate {predictor.name}", total=len(self.dataset)))
            run = _Run(self, self._with_state(predictor), bar, backend)
            run.contents, places = _processes.by_one(run.open)(path, stack)
            if in_parts and path is not None:
                run.ask_in_parts(places, path)
            else:
                # What all are asked in step, all answer alike: the first takes note.
                run.ask(places, note=_processes.by_one(run.note))
            return _processes.by_one(run.evaluation)()

    def _require_same(self, predictor: Predictor, asked_by: str) -> None:
        order = hashlib.sha256("\0".join(self.dataset.ids).encode()).hexdigest()
        asked = predictor.fingerprint, asked_by, self.dataset.fingerprint, order
        if len(set(_processes.gathered(asked))) > 1:
            raise EvaluationError(
                "the processes do not have the same predictor and the same photos in the same order; read and split "
                "the data in a way that does not depend on the process"
            )

    def _with_state(self, predictor: Predictor) -> Predictor:
        """Give a predictor that keeps notes of its own, such as the names of its batch jobs, a folder for them."""
        with_state = getattr(predictor, "with_state", None)
        if self.run_dir is None or with_state is None:
            return predictor
        kept: Predictor = with_state(self.run_dir / "state" / predictor.fingerprint)
        return kept

    def _journal_path(self, predictor: Predictor) -> Path | None:
        if self.run_dir is None:
            return None
        slug = re.sub(r"[^a-z0-9]+", "-", predictor.name.lower()).strip("-")[:60] or "predictor"
        return self.run_dir / "predictions" / f"{slug}-{predictor.fingerprint[:8]}.jsonl"


class _Run:
    """One predictor on one dataset; of several processes, the first has the journal and makes the result.

    Attributes:
        contents: 32 bytes for each example, the hash of its image; the first process tells the others.
        journal: Where all answers are.
        notes: Where this process's answers go now.
    """

    journal: Journal
    notes: Journal

    def __init__(self, evaluator: Evaluator, predictor: Predictor, bar: Bar, backend: Spreads | None) -> None:
        self.evaluator = evaluator
        self.dataset = evaluator.dataset
        self.task = evaluator.dataset.task
        self.predictor = predictor
        self.bar = bar
        self.backend = backend
        self.fingerprints = self.task.fingerprint, predictor.fingerprint
        self.contents = bytearray()
        self.unreadable: dict[int, str] = {}
        self.repeats: set[int] = set()
        self.right = self.counted = 0
        self.wall_s = 0.0

    def open(self, path: Path | None, stack: ExitStack) -> tuple[bytearray, array[int]]:
        """Open the journal, and return `contents` and the places of the examples to ask about."""
        # First, because it takes memory for a moment, as the columns do.
        _ = self.dataset.fingerprint
        self.journal = self.notes = stack.enter_context(Journal(path))
        if path is not None and (parts := left_over(path)):
            count = take_in(self.journal, parts)
            notice(f"{path.name}: took in {count} answers of several processes that were stopped")
        # A million places in a list would take four times as much.
        places = array("q", self._open_questions())
        return self.contents, places

    def _open_questions(self) -> Iterator[int]:
        """Yield where to ask: the first of each image that has no answer but failures."""
        seen = KeyIndex()
        for place, example in enumerate(self.dataset):
            try:
                self.contents += _content(example)
            except ImageError as error:
                self.contents += bytes(32)
                self.unreadable[place] = str(error)
                self.bar.advance()
                continue
            key = self._key(place)
            entry = self.journal.get(key)
            if entry is not None and entry.prediction.outcome != "failed":
                self._count(entry.prediction, example)
            elif key in seen:
                self.bar.advance()
            else:
                yield place
            if key in seen:
                self.repeats.add(place)
            seen[key] = place

    def ask_in_parts(self, places: Sequence[int], path: Path) -> None:
        """Let every process ask about a part, with a journal of its own; then there is one journal again."""
        rank, size = _processes.rank(), _processes.world_size()

        def note(place: int, answer: Answer) -> None:
            # Meanwhile the others have answered one each.
            self.note(place, answer, num=min(size, len(places) - size * answer.number))

        with _processes.together() as in_vain, Journal(part_path(path, rank)) as self.notes:
            # Neighbours are alike, in a folder or a file: dealt out in turn, every part has as much work in it.
            self.ask(places[rank::size], note=note, in_vain=in_vain)
            num_answers = len(self.notes)
        _processes.by_one(self._take_in)(path, _processes.gathered(num_answers))

    def _take_in(self, path: Path, num_answers: Sequence[int]) -> None:
        parts = [part_path(path, rank) for rank in range(len(num_answers))]
        if take_in(self.journal, parts) < sum(num_answers):
            raise StorageError(
                f"the answers of some processes are not in {path.parent}; several machines need a run_dir that all see"
            )

    def ask(
        self, places: Sequence[int], *, note: Callable[[int, Answer], None], in_vain: Callable[[], bool] = lambda: False
    ) -> None:
        """Ask, and write down every answer the moment it arrives."""
        if not places:
            return
        examples = [self.dataset.examples[place] for place in places]
        with closing(ask(self.predictor, examples, self.task, backend=self.backend)) as answers:
            for answer in answers:
                note(places[answer.number], answer)
                if in_vain():
                    return

    def note(self, place: int, answer: Answer, *, num: int = 1) -> None:
        """Write one answer down; the bar moves on by `num`."""
        self.notes.append(self._key(place), answer.prediction, elapsed_s=answer.elapsed_s)
        self._count(answer.prediction, self.dataset.examples[place], num=num)

    def evaluation(self) -> Evaluation:
        """Put all answers into columns."""
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
            prompt_note=getattr(self.predictor, "prompt_note", ""),
            possibly_billed=getattr(self.predictor, "possibly_billed", 0),
        )

    def _key(self, place: int) -> str:
        return journal_key(self._content_hash(place), *self.fingerprints)

    def _content_hash(self, place: int) -> str:
        return self.contents[32 * place : 32 * place + 32].hex()

    def _count(self, prediction: Prediction, example: Example, *, num: int = 1) -> None:
        if prediction.outcome != "failed":
            self.counted += 1
            self.right += prediction.label == example.label
            self.bar.note(f"accuracy {self.right / self.counted:.1%}")
        self.bar.advance(num)

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
