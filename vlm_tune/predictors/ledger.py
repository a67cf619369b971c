"""The ledger: which calls were sent, what they cost, and which may be billed though no answer came."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from vlm_tune.errors import StorageError

__all__ = ["Call", "Ledger"]


@dataclass(frozen=True, eq=False)
class Call:
    """One call that was sent, and the most it may cost in dollars."""

    most_usd: float


class Ledger:
    """Calls as they are sent and settled; a call that is never settled is possibly billed.

    With a file it remembers across runs, also those that were killed: a line `+ dollars` is on disk before a call
    is sent and a line `- dollars paid` once its answer is safe with whoever asked, or is known to cost nothing. The
    lines that have no partner are calls that broke off: reset, timed out, or in flight when the process died.

    Args:
        path: The file; None keeps everything in memory.

    Raises:
        StorageError: The file cannot be read.

    Examples:
        >>> ledger = Ledger()
        >>> first, second = ledger.send(0.25), ledger.send(0.25)
        >>> ledger.settle(first, paid_usd=0.01)
        >>> ledger.lose(second)
        >>> ledger.paid_usd, ledger.possibly_billed, ledger.committed_usd
        (0.01, 1, 0.26)
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.paid_usd = 0.0
        self.possibly_billed = 0
        self.possibly_billed_usd = 0.0
        self._pending: set[Call] = set()
        self._lock = threading.Lock()
        if path is not None:
            self._read(path)

    def __getstate__(self) -> dict[str, object]:
        # A call in flight stays with the process that waits for it.
        return {name: value for name, value in vars(self).items() if name not in ("_pending", "_lock")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state, _pending=set(), _lock=threading.Lock())

    @property
    def num_pending(self) -> int:
        """Calls sent of which nothing is known yet."""
        return len(self._pending)

    @property
    def committed_usd(self) -> float:
        """Dollars paid, plus the most that calls pending or broken off may cost."""
        with self._lock:
            return self.paid_usd + self.possibly_billed_usd + sum(call.most_usd for call in self._pending)

    def send(self, most_usd: float) -> Call:
        """Note that a call is about to be sent."""
        call = Call(most_usd)
        with self._lock:
            self._pending.add(call)
        self._write(f"+ {most_usd!r}\n")
        return call

    def settle(self, call: Call, paid_usd: float) -> None:
        """Note what a call cost: its answer is safe, or the server refused to do it."""
        self._write(f"- {call.most_usd!r} {paid_usd!r}\n")
        with self._lock:
            self._pending.discard(call)
            self.paid_usd += paid_usd

    def lose(self, call: Call) -> None:
        """Note that a call broke off: it may be billed."""
        with self._lock:
            if call in self._pending:
                self._pending.remove(call)
                self.possibly_billed += 1
                self.possibly_billed_usd += call.most_usd

    def resume(self, most_usd: float) -> Call:
        """Take a call of an earlier run, whose answer may still come, out of those that broke off."""
        call = Call(most_usd)
        with self._lock:
            self._pending.add(call)
            self.possibly_billed -= 1
            self.possibly_billed_usd -= most_usd
        return call

    def close(self) -> None:
        """Count what is still pending as broken off; call it when nobody waits for an answer any more."""
        for call in list(self._pending):
            self.lose(call)

    def _write(self, line: str) -> None:
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                os.write(file, line.encode())
            finally:
                os.close(file)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}; make room and run again") from error

    def _read(self, path: Path) -> None:
        try:
            lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
            if lines.pop():  # torn by a kill or a full disk: it says nothing, and must not join the next one
                os.truncate(path, sum(len(line) + 1 for line in lines))
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror}") from error
        for line in lines:
            try:
                sign, most, *paid = line.decode().split()
                direction = 1 if sign == "+" else -1
                self.possibly_billed += direction
                self.possibly_billed_usd += direction * float(most)
                self.paid_usd += float(paid[0]) if paid else 0.0
            except ValueError as error:
                raise StorageError(f"{path} is not a list of calls; restore or remove it") from error
        self.possibly_billed_usd = self.possibly_billed_usd if self.possibly_billed else 0.0
