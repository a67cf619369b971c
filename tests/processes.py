"""Child processes: those that tests stop half-way, and two that train or answer together.

Importing torch, transformers and TRL takes longer than most of what children do. One process imports them
(`tests.heavy`) and forks a child for each script; apart from that a child is what `python script.py` starts.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Child", "Ran", "hear_interrupts", "launch", "run", "torchrun"]

ROOT = Path(__file__).parent.parent
PATIENCE_S = 240


def hear_interrupts() -> None:
    """Undo an ignored Ctrl-C, for `preexec_fn`: shells start background jobs deaf to it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Ran(NamedTuple):
    """What a child, or two of them, left behind."""

    status: int
    out: str
    err: str


class Child:
    """A Python process that was forked with the heavy imports done.

    Args:
        command: What stands behind `python`: a script, `-m` and a module or `-c` and code; then its arguments.
        env: Environment variables to set beside those of this process.
        cwd: Its working directory.
    """

    def __init__(self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self._files = [tempfile.NamedTemporaryFile(prefix="child-") for _ in range(2)]  # noqa: SIM115
        words, paths = [str(word) for word in command], [file.name for file in self._files]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **(env or {})}
        self._process = _server().Process(target=_be, args=(words, paths, environment, cwd))
        self._process.start()

    def poll(self) -> int | None:
        """Return its status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self._process.pid is not None and self.poll() is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """End it with -9."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout_s: float = PATIENCE_S) -> Ran:
        """Wait until it is over; it is killed if that takes too long."""
        self._process.join(timeout_s)
        if (status := self.poll()) is None:
            self.kill()
            raise TimeoutError(f"a child ran for {timeout_s:.0f} s; it said: {self._said(1)}")
        return Ran(status, self._said(0), self._said(1))

    def _said(self, which: int) -> str:
        return Path(self._files[which].name).read_text(encoding="utf-8")


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Start a child and wait for it."""
    return Child(*command, env=env, cwd=cwd).wait()


def launch(*command: str | Path) -> Ran:
    """Start two children that know of each other, and end both when one fails, as torchrun does."""
    from torch.distributed import TCPStore

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "ACCELERATE_MIXED_PRECISION": "no",
    }
    children = [Child(*command, env={**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    deadline = time.monotonic() + PATIENCE_S
    while (found := [child.poll() for child in children]) != [0, 0]:
        if any(found) or time.monotonic() > deadline:
            for child in children:
                child.send_signal(signal.SIGTERM)
            break
        time.sleep(0.02)
    first, second = (child.wait(timeout_s=30) for child in children)
    return Ran(int(bool(first.status or second.status)), first.out + second.out, first.err + second.err)


def torchrun(*command: str | Path) -> Ran:
    """Start two processes with torchrun itself, which import everything anew."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "ACCELERATE_MIXED_PRECISION": "no"}
    # In a session of its own, so that nothing is left of it if it hangs.
    child = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    return Ran(child.returncode, out, err)


@cache
def _server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.heavy"])
    # It looks for modules where Python does by itself, and says nothing of those that it does not find.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return context


def _be(words: list[str], paths: list[str], environment: dict[str, str], cwd: Path | None) -> None:
    """Be `python words`, with its output in files; runs in the child."""
    if "tests.heavy" not in sys.modules:
        raise RuntimeError("the process that children are forked from could not import tests.heavy")
    for number, path in enumerate(paths, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", buffering=1) for number in (1, 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
    hear_interrupts()
    os.environ.clear()
    os.environ.update(environment)
    if cwd is not None:
        os.chdir(cwd)
    status = _status_of(words)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(words: list[str]) -> int:
    kind, *rest = words if words[0] in ("-m", "-c") else ("", *words)
    sys.argv = [kind, *rest[1:]] if kind else rest
    try:
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(rest[0], run_name="__main__")
    except SystemExit as asked:
        if isinstance(asked.code, int) or asked.code is None:
            return asked.code or 0
        sys.stderr.write(f"{asked.code}\n")
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        return 1
    return 0
