"""What goes to a worker of the cluster and comes back: work that pickles, and errors as they were raised."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vlm_tune._processes import Failure
from vlm_tune.errors import BackendError

__all__ = ["beside", "packed", "settle", "tried"]

R = TypeVar("R")


def beside(ray: Any, actor: type) -> Any:
    """Return a remote class whose actors live on the caller's machine, which stays when others go."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(actor)


def packed(ray: Any, thing: Any, what: str) -> bytes:
    """Return something pickled; functions of the script itself go along whole.

    Args:
        ray: The module.
        thing: What to send.
        what: What errors call it.

    Raises:
        BackendError: It does not pickle.
    """
    try:
        data: bytes = ray.cloudpickle.dumps(thing)
    # Each part of it may fail in a way of its own.
    except Exception as error:
        raise BackendError(f"{what} cannot be sent to another process: {error}") from error
    return data


def settle(folder: str) -> None:
    """Go to the caller's working directory, where this machine has it: paths may be relative to it."""
    if Path(folder).is_dir():
        os.chdir(folder)


def tried(function: Callable[..., R], *args: Any) -> R | Failure:
    """Return what a function returns, or what it raises, with the traceback as a note."""
    try:
        return function(*args)
    except Exception as error:
        error.add_note(f"On the worker:\n{traceback.format_exc()}")
        return Failure(error)
