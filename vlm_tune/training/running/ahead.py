"""Photos made ready in threads for the steps to come, while the model is busy with this one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from vlm_tune.training.running.steps import Row

__all__ = ["THREADS", "Ahead"]

THREADS = min(16, os.cpu_count() or 1)

_STALE = 256
"""Examples that may be waited for: a run that goes on in the middle of an epoch passes over those before."""

_Made = TypeVar("_Made")


class Ahead(Generic[_Made]):
    """What becomes of rows, begun when they are announced.

    Args:
        work: Makes something of a row, in any thread.

    Examples:
        >>> ahead = Ahead(lambda row: row.index + 1)
        >>> ahead.coming([Row(1, 1.0), Row(2, 1.0)])
        >>> ahead.take(Row(2, 1.0)), ahead.take(Row(5, 1.0))
        (3, 6)
    """

    def __init__(self, work: Callable[[Row], _Made]) -> None:
        self._work = work
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[Row, Future[_Made]] = {}
        self._announced: deque[Row] = deque()

    def coming(self, rows: Sequence[Row]) -> None:
        """Begin with rows that will be taken."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="vlm-tune-photos")
        for row in rows:
            if row not in self._begun:
                self._begun[row] = self._pool.submit(self._work, row)
                self._announced.append(row)
        while len(self._announced) > _STALE + 4 * len(rows):
            stale = self._begun.pop(self._announced.popleft(), None)
            if stale is not None:
                stale.cancel()

    def take(self, row: Row) -> _Made:
        """Return what was made of a row, now if it was not announced.

        Raises:
            Exception: What the work raised.
        """
        begun = self._begun.pop(row, None)
        return self._work(row) if begun is None else begun.result()

    def close(self) -> None:
        """End the threads; what is not begun is left."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._begun.clear()
        self._announced.clear()
        self._pool = None
