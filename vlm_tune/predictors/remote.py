"""What every paid API needs, whoever runs it: retries, a concurrency that adapts, and a loop of its own."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from queue import SimpleQueue
from typing import TypeVar

from pydantic import NonNegativeFloat, PositiveInt

from vlm_tune.records import Record

__all__ = ["AdaptiveLimiter", "Retry", "RetryPolicy", "stream", "with_retries"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class RetryPolicy(Record):
    """How often and how long to try again."""

    attempts: PositiveInt = 6
    """Calls for one example, the first included."""
    first_delay_s: NonNegativeFloat = 1.0
    """Longest wait before the second call; doubles with every further one."""
    longest_delay_s: NonNegativeFloat = 60.0
    """Longest wait that we choose."""
    longest_asked_s: NonNegativeFloat = 180.0
    """Longest wait that the server may ask for; beyond it the example fails at once."""

    def delay(self, attempt: int, asked_s: float | None = None) -> float | None:
        """Return the seconds to wait, drawn at random, after the first, second ... attempt; None: give up."""
        if attempt >= self.attempts or (asked_s is not None and asked_s > self.longest_asked_s):
            return None
        if asked_s is not None:
            return asked_s * random.uniform(1.0, 1.1)
        return random.uniform(0, min(self.longest_delay_s, self.first_delay_s * 2 ** (attempt - 1)))


class Retry(Exception):  # noqa: N818 (a signal inside this room)
    """A call failed in a way that may pass.

    `asked_s` is the wait that the server asks for; `sent` says that the call went out and no reply came back
    whole, so that the server may have done and billed the work.
    """

    def __init__(
        self, reason: str, *, asked_s: float | None = None, overloaded: bool = False, sent: bool = False
    ) -> None:
        super().__init__(reason)
        self.asked_s, self.overloaded, self.sent = asked_s, overloaded, sent


class AdaptiveLimiter:
    """Bounds the calls in flight: up while it goes well, halved when the server is overloaded.

    Until the first overload every success adds one, later only a full round of them does. One overload halves
    once, however many calls of that round it hits.
    """

    def __init__(self, *, start: int = 8, most: int = 16) -> None:
        self.limit, self.most = float(min(start, most)), most
        self._in_flight, self._round, self._resume_at = 0, 0, 0.0
        self._room = asyncio.Condition()

    def pause(self, seconds: float) -> None:
        """Let no call begin for so long."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for room, hold a place for one call, and learn from how it ends."""
        async with self._room:
            await self._room.wait_for(lambda: self._in_flight < int(self.limit))
            self._in_flight += 1
        try:
            while (left := self._resume_at - time.monotonic()) > 0:
                await asyncio.sleep(left)
            round_ = self._round
            yield
            self.limit = min(self.most, self.limit + (1 / self.limit if self._round else 1))
        except Retry as error:
            if error.overloaded and round_ == self._round:
                self.limit = max(1.0, self.limit / 2)
                self._round += 1
            raise
        finally:
            self._in_flight -= 1
            async with self._room:
                self._room.notify_all()


async def with_retries(
    call: Callable[[], Awaitable[Answer]], *, policy: RetryPolicy, limiter: AdaptiveLimiter
) -> Answer:
    """Make a call, again while it raises `Retry` and the policy allows; the last `Retry` goes through."""
    attempt = 0
    while True:
        attempt += 1
        try:
            async with limiter.slot():
                return await call()
        except Retry as error:
            delay = policy.delay(attempt, error.asked_s)
            if delay is None:
                raise
            limiter.pause(error.asked_s or 0.0)
        await asyncio.sleep(delay)


def stream(
    items: Sequence[Item],
    session: Callable[[], AbstractAsyncContextManager[Callable[[Item], Awaitable[Answer]]]],
    *,
    in_flight: int,
) -> Generator[Answer]:
    """Ask about many items at the same time and yield the answers as they come.

    The event loop has a thread of its own, so this works in a notebook too. `session` is opened on it and
    gives the function that answers one item. At most `in_flight` items are begun whose answers nobody has taken
    and dealt with: this is the most that a killed process loses.
    Closing the iterator cancels what is in flight; so does an exception of a call, which is raised here.
    """
    results: SimpleQueue[tuple[Answer] | BaseException | None] = SimpleQueue()
    loop = asyncio.new_event_loop()
    places = asyncio.Semaphore(in_flight)

    async def ask_all() -> None:
        async with session() as ask, asyncio.TaskGroup() as group:

            async def answer(item: Item) -> None:
                results.put((await ask(item),))

            for item in items:
                await places.acquire()
                group.create_task(answer(item))

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(ask_all())
            results.put(None)
        except BaseException as error:
            results.put(error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error)

    def cancel() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    thread = threading.Thread(target=run, name="vlm-tune requests", daemon=True)
    thread.start()
    try:
        while (result := results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result[0]
            # Whoever took the answer comes back for the next one when it is safe.
            with suppress(RuntimeError):  # the loop is closed once the last answer is made
                loop.call_soon_threadsafe(places.release)
    finally:
        with suppress(RuntimeError):  # the loop is closed already when everything was answered
            loop.call_soon_threadsafe(cancel)
        thread.join()
