"""No cluster, or none that will do: said at once, with what to do about it."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable

import pytest

import vlm_tune as vt
from vlm_tune import errors
from vlm_tune.experiments.backends import Report


def square(unit: int, report: Report) -> int:
    return unit**2


def test_without_ray_there_is_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(errors.MissingExtraError, match=r'pip install "vlm-tune\[ray\]"'):
        list(vt.RayBackend().run(square, [1]))


@pytest.mark.parametrize("address", ["{closed}", "ray://{closed}", "nonsense"])
def test_no_cluster_at_the_address_is_said_soon(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        place = address.format(closed=f"127.0.0.1:{taken.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(errors.BackendError, match=f"cannot join a Ray cluster at {place}"):
            list(vt.RayBackend(place).run(square, [1]))
    assert time.monotonic() - started < 10


def test_several_processes_of_one_script_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(errors.BackendError, match="torchrun"):
        list(vt.RayBackend().run(square, [1]))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: vt.RayBackend(num_cpus=0),
        lambda: vt.RayBackend(num_cpus=-1),
        lambda: vt.RayBackend(max_workers=0),
        lambda: vt.RayBackend(max_retries=-1),
    ],
)
def test_impossible_numbers_are_refused(wrong: Callable[[], vt.RayBackend]) -> None:
    with pytest.raises(ValueError):
        wrong()
