"""Child processes that tests stop half-way."""

from __future__ import annotations

import signal

__all__ = ["hear_interrupts"]


def hear_interrupts() -> None:
    """Undo an ignored Ctrl-C, for `preexec_fn`: shells start background jobs deaf to it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
