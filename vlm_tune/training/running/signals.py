"""SIGTERM while a model trains: what a spot machine is told before it goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vlm_tune import _processes

__all__ = ["Ending", "listening"]


class Ending:
    """Whether the process was asked to end.

    Attributes:
        asked: Becomes True with the first SIGTERM.
    """

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def listening() -> Iterator[Ending]:
    """Take note of the first SIGTERM inside the block instead of dying of it; a second one does what it always did.

    Only the main thread can hear signals; in others nothing changes. Of several processes none dies of a second one:
    their launcher passes on what they may have heard already, and kills them in the end.

    Examples:
        >>> with listening() as ending:
        ...     ending.asked
        False
    """
    ending = Ending()
    before = signal.getsignal(signal.SIGTERM)
    # A handler that is not Python's could not be put back.
    if before is None or threading.current_thread() is not threading.main_thread():
        yield ending
        return

    def hear(number: int, frame: FrameType | None) -> None:
        ending.asked = True
        if _processes.world_size() == 1:
            signal.signal(signal.SIGTERM, before)

    signal.signal(signal.SIGTERM, hear)
    try:
        yield ending
    finally:
        signal.signal(signal.SIGTERM, before)
