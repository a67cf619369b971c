"""One thread for each core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

__all__ = ["workers"]


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Yield a thread for each core, for work on one photo at a time.

    Meanwhile each small matrix product runs on one core: threads inside threads wait for each other.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield pool
