"""Threads for a merge: many that move bytes, and a few that compute."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Crew", "crew"]

_MOST_MOVERS = 8


@dataclass(frozen=True)
class Crew:
    """The threads.

    Attributes:
        movers: For reading, hashing and writing, which do not hold the interpreter's lock.
        summers: For sums. On a processor it is one thread, for torch brings its own.
        device: Where the sums are computed.
    """

    movers: ThreadPoolExecutor
    summers: ThreadPoolExecutor
    device: str


@contextmanager
def crew(device: str) -> Iterator[Crew]:
    """Start the threads for the block; what they have not begun when it is left is dropped.

    Args:
        device: The model's. Sums are in float64, which only processors and CUDA have.
    """
    on_gpu = device.startswith("cuda")
    movers = ThreadPoolExecutor(min(_MOST_MOVERS, os.cpu_count() or 1))
    summers = ThreadPoolExecutor(4 if on_gpu else 1)
    try:
        yield Crew(movers, summers, device if on_gpu else "cpu")
    finally:
        movers.shutdown(cancel_futures=True)
        summers.shutdown(cancel_futures=True)
