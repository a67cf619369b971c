"""Units of an experiment on Ray: workers that live as long as there are units, and a desk where they report."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from vlm_tune import _console
from vlm_tune._processes import Failure
from vlm_tune.errors import StoppedError
from vlm_tune.experiments.backends import Outcome, attempt, go_on
from vlm_tune.experiments.on_ray.sending import beside, packed, settle, tried

__all__ = ["Units"]

U = TypeVar("U")


class Worker:
    """A process of the cluster that works on one unit after another.

    Args:
        folder: The caller's working directory.
        work: The packed work: unpacked once, so that what it keeps for the next unit is there.
        desk: Where to report; None where nobody hears.
    """

    def __init__(self, folder: str, work: bytes, desk: Any) -> None:
        settle(folder)
        self._packed = work
        self._work: Any = None
        self._desk = desk

    def attend(self, number: int, unit: bytes) -> Outcome[int, Any] | Failure:
        """Return the outcome of one unit, or what was raised."""
        return tried(self._attend, number, unit)

    def _attend(self, number: int, unit: bytes) -> Outcome[int, Any]:
        import ray

        def report(message: Any) -> bool:
            return bool(ray.get(self._desk.ask.remote(number, message)))

        self._work = self._work or ray.cloudpickle.loads(self._packed)
        outcome = attempt(self._work, ray.cloudpickle.loads(unit), go_on if self._desk is None else report)
        return replace(outcome, unit=number)


class Desk:
    """Where workers ask and the caller answers; who has to wait does so without asking again."""

    def __init__(self) -> None:
        self._questions: asyncio.Queue[tuple[int, int, Any]] = asyncio.Queue()
        self._answers: dict[int, asyncio.Future[bool]] = {}
        self._tickets = itertools.count()

    async def ask(self, number: int, message: Any) -> bool:
        """Return the caller's answer to a report about a unit."""
        ticket = next(self._tickets)
        self._answers[ticket] = asyncio.get_running_loop().create_future()
        self._questions.put_nowait((ticket, number, message))
        return await self._answers[ticket]

    async def question(self) -> tuple[int, int, Any]:
        """Return the next report once there is one: its ticket, the unit's number, the message."""
        return await self._questions.get()

    async def answer(self, ticket: int, answer: bool) -> None:
        """Answer a report."""
        self._answers.pop(ticket).set_result(answer)


@dataclass
class _Sent(Generic[U]):
    """A unit that is worked on."""

    number: int
    unit: U
    worker: Any = None
    num_lost: int = 0


class Units(Generic[U]):
    """One `RayBackend.run`.

    Args:
        ray: The module, connected.
        work: Takes a unit and a report.
        heard: Takes a unit and what was reported of it, in this process.
        needs: Resources of each worker.
        room: Says how many workers there may be now.
        max_retries: How often a unit is begun anew after its worker was lost.
    """

    def __init__(
        self,
        ray: Any,
        work: Callable[..., Any],
        heard: Callable[[U, Any], bool] | None,
        *,
        needs: dict[str, float],
        room: Callable[[], int],
        max_retries: int,
    ) -> None:
        self._ray = ray
        self._heard = heard or _unheard
        self._room = room
        self._max_retries = max_retries
        self._work = ray.put(packed(ray, work, "the work"))
        # Ray would start a lost worker again by itself, but neither tell of it nor know an end.
        self._new_worker = ray.remote(**needs, max_restarts=0, max_task_retries=0)(Worker)
        self._desk: Any = None if heard is None else beside(ray, Desk).remote()
        self._question: Any = None if self._desk is None else self._desk.question.remote()
        self._idle: list[Any] = []
        self._sent: dict[Any, _Sent[U]] = {}
        errors = ray.exceptions
        self._lost = errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError, errors.NodeDiedError

    def outcomes(self, units: Iterable[U]) -> Iterator[Outcome[U, Any]]:
        """Yield the outcome of each unit as it comes; in the end, or when closed, no worker is left."""
        drawn = iter(enumerate(units))
        try:
            while self._fill(drawn):
                yield from self._next()
        finally:
            self._dismiss()

    def _fill(self, drawn: Iterator[tuple[int, U]]) -> bool:
        """Send units while there is room; return whether any is worked on."""
        while len(self._sent) < max(1, self._room()) and (one := next(drawn, None)) is not None:
            self._send(_Sent(*one))
        return bool(self._sent)

    def _send(self, one: _Sent[U]) -> None:
        unit = packed(self._ray, one.unit, f"the unit {one.unit}")
        one.worker = (
            self._idle.pop() if self._idle else self._new_worker.remote(str(Path.cwd()), self._work, self._desk)
        )
        self._sent[one.worker.attend.remote(one.number, unit)] = one

    def _next(self) -> Iterator[Outcome[U, Any]]:
        """Wait until something happens; yield the outcome if a unit is done."""
        waiting = [*self._sent, *([] if self._question is None else [self._question])]
        [first], _ = self._ray.wait(waiting, num_returns=1)
        if first == self._question:
            self._hear(*self._ray.get(first))
            return
        one = self._sent.pop(first)
        try:
            outcome = self._ray.get(first)
        except self._lost as error:
            outcome = Failure(error)
        if not isinstance(outcome, Failure):
            self._idle.append(one.worker)
            yield Outcome(one.unit, outcome.result, outcome.error)
        # Asked to end by its machine, which is about to go.
        elif isinstance(outcome.error, StoppedError | self._ray.exceptions.RayError):
            yield from self._begin_anew(one, outcome.error)
        else:
            # It lives, and is dismissed with the others: whoever keeps the error would keep the worker too.
            self._idle.append(one.worker)
            raise outcome.error

    def _hear(self, ticket: int, number: int, message: Any) -> None:
        for one in self._sent.values():
            if one.number == number:
                self._desk.answer.remote(ticket, bool(self._heard(one.unit, message)))
        self._question = self._desk.question.remote()

    def _begin_anew(self, one: _Sent[U], error: Exception) -> Iterator[Outcome[U, Any]]:
        self._ray.kill(one.worker)
        one.num_lost += 1
        if one.num_lost <= self._max_retries:
            _console.notice("A worker was lost; what it was at is begun anew.")
            self._send(one)
            return
        reason = " ".join(str(error).split())
        yield Outcome(
            one.unit,
            error=f"its worker was lost at every attempt ({one.num_lost}), mostly because memory ran out: {reason}",
        )

    def _dismiss(self) -> None:
        for worker in [*self._idle, *(one.worker for one in self._sent.values())]:
            self._ray.kill(worker)
        if self._desk is not None:
            self._ray.kill(self._desk)


def _unheard(unit: Any, message: Any) -> bool:
    return True
