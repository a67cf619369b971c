"""Child processes: those that tests stop half-way, and two that a launcher starts together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ran", "hear_interrupts", "launch"]


def hear_interrupts() -> None:
    """Undo an ignored Ctrl-C, for `preexec_fn`: shells start background jobs deaf to it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Ran:
    """What a launch left behind."""

    status: int
    out: str
    err: str


def launch(*command: str | Path) -> Ran:
    """Start two processes as torchrun does, and as accelerate launch does underneath."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", "ACCELERATE_MIXED_PRECISION": "no"}
    # In a session of its own, so that nothing is left of it if it hangs.
    child = subprocess.Popen(
        run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    return Ran(child.returncode, out, err)
