"""Joining a Ray cluster, or starting a quiet one on this machine for as long as it is needed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_tune import _processes
from vlm_tune._imports import require
from vlm_tune.errors import BackendError

__all__ = ["connected", "room"]

_CONNECT_S = 5.0
"""How long a cluster may take to answer at its address."""


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, connected; what was started or joined here is left again at the end.

    Args:
        address: As for `RayBackend`. A process that is connected already stays so.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: Nothing answers at the address, or several processes were launched.
    """
    # The second counts where the first process is at work for all.
    if max(_processes.world_size(), _processes.local_world_size()) > 1:
        raise BackendError(
            "RayBackend starts its own processes, and this script was launched as several (torchrun); "
            "run it as one, or leave the backend out"
        )
    ray = require("ray", extra="ray", purpose="RayBackend")
    if ray.is_initialized():
        yield ray
        return
    with _as_it_was():
        folder = None if address else Path(tempfile.mkdtemp(prefix="vlm-tune-ray-", dir=_short_folder()))
        try:
            _join(ray, address, folder)
            yield ray
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def room(ray: Any, *, num_gpus: float, num_cpus: float) -> int:
    """Return how many workers of these needs the machines of the cluster hold."""
    needs = {name: amount for name, amount in (("GPU", num_gpus), ("CPU", num_cpus)) if amount}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(min(int(has.get(name, 0) / amount) for name, amount in needs.items()) for has in machines)


def _join(ray: Any, address: str | None, folder: Path | None) -> None:
    # Its C++ part writes to stderr whatever the logging level is.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init("local", include_dashboard=False, _temp_dir=str(folder), **quiet)
        return
    try:
        if address != "auto":
            _require_answer(address)
        ray.init(address, **quiet)
    # A version that is not the cluster's, a missing token, and no cluster are of three kinds.
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise BackendError(
            f"cannot join a Ray cluster at {address}: {error}. Start one with `ray start --head`, correct the address, "
            "or leave it out for a cluster on this machine alone"
        ) from error


def _require_answer(address: str) -> None:
    # Ray itself goes on trying for minutes.
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is 'auto', host:port or ray://host:port")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _short_folder() -> str | None:
    # Sockets lie in it, and their paths may have some hundred letters only.
    return "/tmp" if Path("/tmp").is_dir() else None


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Undo what Ray leaves in a process: variables of the environment, and what is done at a SIGTERM."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("RAY_")]:
            del os.environ[name]
        os.environ.update(variables)
        # None is a handler that Python did not set, and cannot set again.
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)
