"""Several processes of one script: who is who, what one does for all, and who tells of a failure.

A launcher (`torchrun`, `accelerate launch`) runs the same script once a GPU. All processes train, and all answer;
everything else that takes long or writes files is done by the first of them, and the others get its result. How many
there are, and which one this is, the launcher says in RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, and where they
meet in MASTER_ADDR, MASTER_PORT and TORCHELASTIC_RESTART_COUNT: the only environment variables besides API keys that
are read. Without all of the first four, the process is alone.
"""

from __future__ import annotations

import atexit
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

__all__ = [
    "Failure",
    "barrier",
    "by_one",
    "first_to_fail",
    "gathered",
    "is_main",
    "join",
    "local_rank",
    "local_world_size",
    "rank",
    "same",
    "together",
    "world_size",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which may have a whole test set to ask about."""

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

_POLL_S = 1.0
"""How often a process that does its part of something asks whether another one has failed."""

_busy_for_all = 0
"""How many calls of `by_one` this process is inside of; there it is alone."""

_num_together = 0
"""How many times the processes have done something together; the same in all of them."""


def rank() -> int:
    """Return which process this is, from 0."""
    return 0 if _busy_for_all else _launched("RANK", 0)


def world_size() -> int:
    """Return how many processes there are."""
    return 1 if _busy_for_all else _launched("WORLD_SIZE", 1)


def local_rank() -> int:
    """Return which of this machine's processes this is, from 0; it is also the number of its GPU."""
    return _launched("LOCAL_RANK", 0)


def local_world_size() -> int:
    """Return how many processes share this machine."""
    return _launched("LOCAL_WORLD_SIZE", 1)


def is_main() -> bool:
    """Return whether this is the process that prints and writes.

    Examples:
        >>> is_main(), world_size()
        (True, 1)
    """
    return rank() == 0


def join() -> None:
    """Connect the processes; at once if they are connected, or if there is only one."""
    import torch
    from torch import distributed

    if world_size() == 1 or distributed.is_initialized():
        return
    backend = "gloo"
    if torch.cuda.is_available():
        # More processes than GPUs are refused where a model is read, in words.
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        # Objects go through gloo: waiting there for the first process costs nothing and never times out.
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    atexit.register(_leave)
    sys.excepthook = _telling_once(sys.excepthook)


def barrier() -> None:
    """Wait for all processes."""
    gathered(None)


def gathered(value: _T) -> list[_T]:
    """Return what each process gives, in the order of their ranks."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    join()
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def same(value: _T) -> _T:
    """Return what the first process gives, in all of them: decisions that depend on a disk or a clock.

    Examples:
        >>> same("only one process here")
        'only one process here'
    """
    if world_size() == 1:
        return value
    from torch import distributed

    join()
    box: list[Any] = [value if is_main() else None]
    distributed.broadcast_object_list(box, src=0)
    result: _T = box[0]
    return result


def by_one(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let the first process call a function for all of them; what it returns or raises, all return or raise.

    Examples:
        >>> by_one(max)([3, 5, 4])
        5
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if world_size() == 1:
            return function(*args, **kwargs)
        join()
        result, failure = same(_tried(function, *args, **kwargs) if is_main() else (None, None))
        if failure is not None:
            raise failure.error
        return result  # type: ignore[return-value]

    return call


@contextmanager
def together() -> Iterator[Callable[[], bool]]:
    """Let every process do its part of something in the block, which all must enter; what one raises, all raise.

    Yields:
        What says whether another process has failed, so that going on is in vain; cheap enough to be asked at any time.

    Examples:
        >>> with together() as in_vain:
        ...     print(in_vain())
        False
    """
    global _num_together
    if world_size() == 1:
        yield lambda: False
        return
    join()
    _num_together += 1
    name, failure = f"in_vain/{_num_together}", None
    try:
        yield _polled(name)
    except Exception as error:
        _tally(name, 1)
        failure = Failure(error)
    failures = gathered(failure)
    # One's own error keeps its traceback.
    failures[rank()] = failure
    for first in failures:
        if first is not None:
            raise first.error


def first_to_fail() -> bool:
    """Return whether no other process has failed before: that one tells why, the others are only its victims."""
    # Nobody to ask: better said twice than not at all.
    return world_size() == 1 or _tally("failed", 1) in (1, None)


def _tally(name: str, amount: int) -> int | None:
    """Add to a number that all processes share, and return it; None where nobody keeps it."""
    from torch import distributed

    try:
        # The launcher keeps it, so it is there when the first process is not.
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=10)
        )
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return int(store.add(f"vlm_tune/{name}/{start}", amount))
    except (KeyError, RuntimeError):
        return None


def _polled(name: str) -> Callable[[], bool]:
    asked_at = time.monotonic()

    def in_vain() -> bool:
        nonlocal asked_at
        if time.monotonic() - asked_at < _POLL_S:
            return False
        asked_at = time.monotonic()
        return bool(_tally(name, 0))

    return in_vain


def _launched(name: str, alone: int) -> int:
    if any(variable not in os.environ for variable in _VARIABLES):
        return alone
    return int(os.environ[name])


def _tried(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> tuple[_T | None, Failure | None]:
    global _busy_for_all
    _busy_for_all += 1
    try:
        return function(*args, **kwargs), None
    except Exception as error:
        return None, Failure(error)
    finally:
        _busy_for_all -= 1


class Failure:
    """An error on its way to other processes: many cannot be pickled, for they are made of other things than words."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __getstate__(self) -> tuple[type[Exception], str, dict[str, Any]]:
        carried = {}
        for name, value in vars(self.error).items():
            with suppress(Exception):
                pickle.dumps(value)
                carried[name] = value
        return type(self.error), str(self.error), carried

    def __setstate__(self, state: tuple[type[Exception], str, dict[str, Any]]) -> None:
        kind, words, carried = state
        self.error = kind.__new__(kind, words)
        vars(self.error).update(carried)


def _telling_once(hook: Callable[..., Any]) -> Callable[..., Any]:
    def tell(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        if first_to_fail():
            hook(kind, error, traceback)

    return tell


def _leave() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
