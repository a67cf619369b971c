"""Waiting, holding back and stopping, without any server."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from vlm_tune.predictors.remote import AdaptiveLimiter, Retry, RetryPolicy, stream, with_retries

QUICK = RetryPolicy(attempts=4, first_delay_s=0.001)


def test_waits_double_up_to_a_bound_and_end() -> None:
    policy = RetryPolicy(attempts=8, first_delay_s=1.0, longest_delay_s=10.0)
    for attempt, bound in zip(range(1, 8), (1, 2, 4, 8, 10, 10, 10), strict=True):
        waits = [policy.delay(attempt) for _ in range(200)]
        assert all(wait is not None and 0 <= wait <= bound for wait in waits)
        assert max(wait for wait in waits if wait is not None) > 0.8 * bound
    assert policy.delay(8) is None


def test_the_servers_wait_is_kept_unless_it_is_too_long() -> None:
    policy = RetryPolicy(longest_asked_s=60.0)
    assert all(53 <= (policy.delay(1, 53.0) or 0) <= 53 * 1.1 for _ in range(100))
    assert policy.delay(1, 61.0) is None


def test_a_call_is_made_again_until_it_works_or_the_attempts_are_spent() -> None:
    async def run(failures: int) -> int:
        calls = 0

        async def call() -> int:
            nonlocal calls
            calls += 1
            if calls <= failures:
                raise Retry("503")
            return calls

        return await with_retries(call, policy=QUICK, limiter=AdaptiveLimiter())

    assert asyncio.run(run(3)) == 4
    with pytest.raises(Retry, match="503"):
        asyncio.run(run(4))


async def flight(limiter: AdaptiveLimiter, overloaded: bool) -> None:
    try:
        async with limiter.slot():
            await asyncio.sleep(0)
            if overloaded:
                raise Retry("429", overloaded=True)
    except Retry:
        pass


def test_one_round_of_overload_halves_once_and_success_grows_to_the_bound() -> None:
    async def run() -> None:
        limiter = AdaptiveLimiter(start=8, most=16)
        await asyncio.gather(*(flight(limiter, overloaded=True) for _ in range(8)))
        assert limiter.limit == 4
        await asyncio.gather(*(flight(limiter, overloaded=False) for _ in range(4)))
        assert 4.5 < limiter.limit <= 5
        await asyncio.gather(*(flight(limiter, overloaded=False) for _ in range(1000)))
        assert limiter.limit == 16
        for _ in range(20):
            await flight(limiter, overloaded=True)
        assert limiter.limit == 1

    asyncio.run(run())


def test_never_more_in_flight_than_the_limit() -> None:
    async def run() -> int:
        limiter = AdaptiveLimiter(start=2, most=5)
        now = most = 0

        async def call() -> None:
            nonlocal now, most
            async with limiter.slot():
                now += 1
                most = max(most, now)
                await asyncio.sleep(0.001)
                now -= 1

        await asyncio.gather(*(call() for _ in range(60)))
        return most

    assert asyncio.run(run()) == 5


def test_a_pause_holds_every_call_back() -> None:
    async def run() -> float:
        limiter = AdaptiveLimiter()
        limiter.pause(0.05)
        start = time.monotonic()
        await flight(limiter, overloaded=False)
        return time.monotonic() - start

    assert asyncio.run(run()) >= 0.05


Session = Callable[[], "asynccontextmanager[Callable[[int], Awaitable[int]]]"]


def session_of(ask: Callable[[int], Awaitable[int]], closed: list[bool]) -> Callable[[], object]:
    @asynccontextmanager
    async def session() -> AsyncIterator[Callable[[int], Awaitable[int]]]:
        try:
            yield ask
        finally:
            closed.append(True)

    return session


async def double(number: int) -> int:
    await asyncio.sleep(0.001 * (number % 3))
    return 2 * number


def num_threads() -> int:
    return sum(thread.name == "vlm-tune requests" for thread in threading.enumerate())


def test_every_item_is_answered_once_also_inside_a_running_loop() -> None:
    async def notebook() -> list[int]:
        return sorted(stream(range(50), session_of(double, closed), in_flight=7))  # type: ignore[arg-type]

    closed: list[bool] = []
    assert asyncio.run(notebook()) == [2 * number for number in range(50)]
    assert closed == [True]
    assert num_threads() == 0


def test_closing_early_stops_asking_and_closes_the_session() -> None:
    asked = []

    async def ask(number: int) -> int:
        asked.append(number)
        await asyncio.sleep(0.001)
        return number

    closed: list[bool] = []
    answers = stream(range(10_000), session_of(ask, closed), in_flight=4)  # type: ignore[arg-type]
    assert len(list(itertools.islice(answers, 3))) == 3
    answers.close()  # type: ignore[attr-defined]
    assert closed == [True]
    assert len(asked) < 1000
    assert num_threads() == 0


def test_an_exception_of_a_call_is_raised_here_and_stops_the_others() -> None:
    async def ask(number: int) -> int:
        if number == 3:
            raise ValueError("no such model")
        await asyncio.sleep(30 if number > 3 else 0)
        return number

    closed: list[bool] = []
    with pytest.raises(ValueError, match="no such model"):
        list(stream(range(8), session_of(ask, closed), in_flight=8))  # type: ignore[arg-type]
    assert closed == [True]
    assert num_threads() == 0
