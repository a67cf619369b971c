"""Ways to go wrong in the middle of a training."""

from __future__ import annotations

import hashlib
import itertools
import os
import pkgutil
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vlm_tune.training import Adapter, TrainConfig

__all__ = ["SHORT", "STEPS", "at_call", "checkpoints", "digest", "full_disk", "signalled"]

SHORT = TrainConfig(r=4, lora_alpha=16, learning_rate=5e-3, epochs=1.5, save_every=2)
"""Nine steps of twenty-four examples, the last epoch cut in half."""

STEPS = "vlm_tune.training.running.sft.Loss.backward"
"""What is called once a step."""


@contextmanager
def at_call(name: str, number: int, act: Callable[..., Any]) -> Iterator[None]:
    """Do something just before a function is called for the n-th time; it gets the call's arguments."""
    owner, _, attribute = name.rpartition(".")
    place, calls = pkgutil.resolve_name(owner), itertools.count(1)
    before = getattr(place, attribute)

    def acting(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == number:
            act(*args, **kwargs)
        return before(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, attribute, acting)
        yield


def signalled(*numbers: int) -> Callable[..., None]:
    """Return what sends this process some signals, one after the other."""

    def send(*args: Any, **kwargs: Any) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    return send


@contextmanager
def full_disk() -> Iterator[Callable[..., None]]:
    """Yield what makes every file stop growing at 20 kB; undone at the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda *args, **kwargs: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def digest(adapter: Adapter) -> str:
    """Return the hash of an adapter's weights."""
    return hashlib.sha256((adapter.path / "adapter_model.safetensors").read_bytes()).hexdigest()


def checkpoints(run_dir: Path) -> dict[str, bool]:
    """Return the checkpoints of a run, and whether each has its mark."""
    return {path.name: (path / "vlm_tune.json").exists() for path in run_dir.glob("checkpoints/*/*")}
