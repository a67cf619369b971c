"""Gemini in batch mode: half the price, an answer within a day, and no job is ever created twice."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune._console import notice
from vlm_tune.errors import BudgetError, ImageError
from vlm_tune.predictors.asking import RejectedError
from vlm_tune.predictors.gemini_batch_jobs import BatchJobs, Look
from vlm_tune.predictors.gemini_batch_options import BatchOptions
from vlm_tune.predictors.gemini_batch_planning import Planner
from vlm_tune.predictors.gemini_batch_state import JobFolder, JobRecord
from vlm_tune.predictors.gemini_batch_wire import Matched
from vlm_tune.predictors.gemini_session import ask_online
from vlm_tune.predictors.gemini_wire import prediction_of
from vlm_tune.predictors.remote import Retry
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from google.genai import Client

    from vlm_tune.predictors.gemini import Gemini

__all__ = ["BatchOptions", "predict_in_batch"]

_SAY_AGAIN_S = 600.0
_FREE_STATES = {"FAILED", "EXPIRED"}


def predict_in_batch(gemini: Gemini, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
    """Yield one prediction per example as batch jobs end.

    One example is asked online first: it proves key, model and answer schema in seconds rather than after a day.
    Jobs that an earlier, killed run left open are found again and finished. What a job does not answer, or not
    before the deadline, is asked online at the end.

    Raises:
        PredictorError: The key or the model is refused, or nobody can tell whether a job exists.
        BudgetError: The next example could pass `max_cost_usd`.
        StorageError: The state folder cannot be read or written.
        ImageError: A shot cannot be read.
    """
    with ExitStack() as stack:
        client = gemini._client()
        stack.callback(client.close)
        folder = gemini.state_dir
        if folder is None:
            notice("Without a run_dir, a batch job is cancelled when this process ends before it.")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vlm-tune-")))
        run = _Run(gemini, client, folder / "batch", task)
        if gemini.state_dir is None:
            stack.callback(run.cancel_all)
        yield from run.predictions(examples)


class _Run:
    """One `predict`: the questions still open, and the jobs that hold them."""

    def __init__(self, gemini: Gemini, client: Client, folder: Path, task: Task) -> None:
        self.gemini = gemini
        self.task = task
        self.options = gemini.batch or BatchOptions()
        self.folder = JobFolder(folder)
        self.jobs = BatchJobs(gemini, client, self.folder, self.options)
        self.price = gemini.price(batch=True)
        self.wanted: dict[str, Example] = {}
        self.open: list[JobRecord] = []
        self.left: dict[str, Example] = {}
        self.spent: list[JobRecord] = []
        self.said: dict[str, tuple[str, float]] = {}
        self.cancelled_s: dict[str, float] = {}

    def predictions(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        """Yield the answers of all jobs, then those that had to be asked online."""
        self.folder.prepared()
        yield from self._key(examples)
        waiting = self._resume()
        yield from self._probe(waiting)
        planner = Planner(self.gemini, self.task, self.options, self.folder, self.price)
        over_budget = False
        while waiting or self.open:
            num_before = len(waiting)
            yield from self._begin(waiting, planner)
            over_budget = bool(waiting) and len(waiting) == num_before and not self.open
            if over_budget:
                break
            yield from self._finish()
        yield from self._ask_online()
        if over_budget:
            raise self._out_of_budget(len(waiting))

    def cancel_all(self) -> None:
        """Stop the jobs that nobody waits for any more."""
        for record in self.open:
            self.jobs.cancel(record)
            self.jobs.forget(record)

    def _key(self, examples: Sequence[Example]) -> Iterator[Prediction]:
        """Give every example a key made of its content: another run finds the same one, whatever its id."""
        for example in examples:
            try:
                key = example.content_hash[:32]
            except ImageError as error:
                yield Prediction(example_id=example.id, outcome="failed", error=str(error))
                continue
            copy = 1
            while (name := key if copy == 1 else f"{key}-{copy}") in self.wanted:
                copy += 1
            self.wanted[name] = example

    def _resume(self) -> dict[str, Example]:
        """Take up the jobs of an earlier run that hold our questions; return the questions that none holds."""
        waiting = dict(self.wanted)
        for record in self.folder.records(self.task.fingerprint):
            if waiting.keys().isdisjoint(record.keys):
                continue
            found = record if record.server_name else self.jobs.find(record)
            if found is None:
                self.jobs.forget(record)
                continue
            notice(f"Batch job {found.server_name} of an earlier run is taken up again.")
            self.open.append(found)
            for key in found.keys:
                waiting.pop(key, None)
        return waiting

    def _probe(self, waiting: dict[str, Example]) -> Iterator[Prediction]:
        """Ask one example online, unless it is known already whether the model takes the answer schema."""
        if not waiting or self.gemini.constrained is not None:
            return
        key, example = next(iter(waiting.items()))
        for prediction in ask_online(self.gemini, [example], self.task):
            if prediction.outcome != "failed":
                del waiting[key], self.wanted[key]
                yield prediction

    def _begin(self, waiting: dict[str, Example], planner: Planner) -> Iterator[Prediction]:
        """Create jobs for the questions that wait, as many as the budget allows."""
        while waiting:
            plan = planner.prepare(waiting, reserved_usd=sum(record.most_usd for record in self.open))
            yield from plan.unreadable
            if plan.keys:
                record = self.folder.begin(self.task.fingerprint, plan.keys, most_usd=plan.most_usd)
                created = self.jobs.create(record, plan.requests, planner.config)
                if created is None:
                    self.left.update((key, self.wanted[key]) for key in plan.keys)
                else:
                    notice(f"Batch job {created.server_name}: {len(plan.keys)} examples sent.")
                    self.open.append(created)
            plan.requests.unlink(missing_ok=True)
            if plan.over_budget:
                return

    def _finish(self) -> Iterator[Prediction]:
        """Wait for all jobs, and yield what they bring as they end."""
        pause = self.options.poll_s
        while True:
            for record in list(self.open):
                ended = self._ended(record)
                if ended is not None:
                    self.open.remove(record)
                    yield from self._answers(record, *ended)
            if not self.open:
                return
            overdue_s = min(record.begun_s for record in self.open) + self.options.deadline_s - time.time()
            time.sleep(min(pause, overdue_s) if overdue_s > 0 else pause)
            pause = min(1.5 * pause, self.options.longest_poll_s)

    def _ended(self, record: JobRecord) -> tuple[Look, Matched] | None:
        """Return what a job brought once it has ended, or once it has been waited for long enough."""
        look = Look("UNKNOWN")
        try:
            look = self.jobs.look(record)
            if look.ended:
                return look, self.jobs.collect(record, look)
        except (Retry, RejectedError) as error:
            look = Look(f"not to be reached ({self.gemini.hide_key(str(error))})")
        self._say(record, look.state)
        now, name = time.time(), record.display_name
        if now < record.begun_s + self.options.deadline_s:
            return None
        if name not in self.cancelled_s:
            notice(f"Batch job {record.server_name} is past its deadline and is cancelled.")
            self.jobs.cancel(record)
            self.cancelled_s[name] = now
        return (look, Matched()) if now > self.cancelled_s[name] + self.options.settle_s else None

    def _say(self, record: JobRecord, state: str) -> None:
        """Say how a job is when that changes, and every ten minutes."""
        now = time.time()
        before, said_s = self.said.get(record.display_name, ("", 0.0))
        if state != before or now > said_s + _SAY_AGAIN_S:
            minutes = (now - record.begun_s) / 60
            notice(f"Batch job {record.server_name}: {state.lower()} after {minutes:.0f} min.")
            self.said[record.display_name] = state, now

    def _answers(self, record: JobRecord, look: Look, found: Matched) -> Iterator[Prediction]:
        """Yield the answers of a job, and keep what it leaves open for the end."""
        for key, reply in found.replies.items():
            example = self.wanted.pop(key, None)
            if example is None:
                continue
            prediction = prediction_of(example.id, reply, self.task, price=self.price)
            yield prediction
            # Whoever asked comes back once the answer is safe; until then the job can be fetched again for nothing.
            paid_usd = prediction.cost_usd or 0.0
            self.gemini.ledger.settle(self.gemini.ledger.send(paid_usd), paid_usd)
        self._say_what_is_wrong(record, look, found)
        record = self._count_losses(record, look, found)
        open_ = {key: self.wanted[key] for key in record.keys if key in self.wanted}
        if open_:
            self.left.update(open_)
            self.spent.append(record)
        else:
            self.jobs.forget(record)

    def _say_what_is_wrong(self, record: JobRecord, look: Look, found: Matched) -> None:
        counts: Mapping[str, int] = {
            "with an error": len(found.errors),
            "not answered": found.num_missing(record.keys),
            "answered more than once": found.num_again,
            "without a key that we sent": found.num_strange,
        }
        wrong = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        notice(f"Batch job {record.server_name}: {look.state.lower()}{f' ({wrong})' if wrong else ''}.")

    def _count_losses(self, record: JobRecord, look: Look, found: Matched) -> JobRecord:
        """Count in the ledger, once, what the server perhaps answered and billed, and we never got."""
        num_lost = 0 if look.state in _FREE_STATES else found.num_missing(record.keys)
        if not num_lost or record.losses_counted:
            return record
        for _ in range(num_lost):
            self.gemini.ledger.lose(self.gemini.ledger.send(record.most_usd / len(record.keys)))
        return self.folder.save(record.model_copy(update={"losses_counted": True}))

    def _ask_online(self) -> Iterator[Prediction]:
        if self.left:
            notice(f"{len(self.left)} examples that no batch job answered are asked online, at the full price.")
            yield from ask_online(self.gemini, list(self.left.values()), self.task)
        for record in self.spent:
            self.jobs.forget(record)

    def _out_of_budget(self, num_left: int) -> BudgetError:
        cap, paid_usd = self.gemini.options.max_cost_usd or 0.0, self.gemini.ledger.paid_usd
        return BudgetError(
            f"{self.gemini.model}: one more example in batch could pass max_cost_usd=${cap:g}, with ${paid_usd:.4f} "
            f"paid; {num_left} examples are left. What was answered is kept: raise max_cost_usd, or bound an answer "
            "with max_output_tokens, and run again",
            spent_usd=paid_usd,
            num_left=num_left,
        )
