"""Answers of several processes: while they ask, each keeps a journal of its own; behind that there is one again.

The parts lie beside the one journal: `model-1a2b3c4d.part0.jsonl` and so on. Those of a run that was killed are taken
in by the next one, however many processes that has.
"""

from __future__ import annotations

import glob
import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from vlm_tune.journal import Entry, Journal

__all__ = ["left_over", "part_path", "take_in"]


def part_path(path: Path, rank: int) -> Path:
    """Return where one process keeps its part of a journal.

    Examples:
        >>> part_path(Path("oracle-1a2b3c4d.jsonl"), 3).name
        'oracle-1a2b3c4d.part3.jsonl'
    """
    return path.with_name(f"{path.stem}.part{rank}{path.suffix}")


def left_over(path: Path) -> list[Path]:
    """Return the parts of a journal that a run of several processes has left behind."""
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.part*{path.suffix}"))


def take_in(journal: Journal, parts: Sequence[Path]) -> int:
    """Append what is in some parts to their journal, remove them, and return how many answers they had.

    All parts count time from the same moment. The answers are appended in the order in which they came, each with the
    time since the one before it whoever answered that, so the times add up to what the processes took side by side.

    Args:
        journal: The one journal; being killed in the middle leaves nothing out of it and nothing twice.
        parts: Written by processes that asked at the same time.

    Raises:
        StorageError: Another process has a part open, or the disk is full; no answer is lost.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(Journal(part)) for part in parts]
        before = 0.0
        for arrived_s, entry in heapq.merge(*map(_arrivals, opened), key=lambda pair: pair[0]):
            known = journal.get(entry.key)
            if known is None or known.prediction.outcome == "failed":
                journal.append(entry.key, entry.prediction, elapsed_s=arrived_s - before)
            before = arrived_s
        journal.sync()
        count = sum(map(len, opened))
    for part in parts:
        part.unlink()
    return count


def _arrivals(part: Journal) -> Iterator[tuple[float, Entry]]:
    arrived_s = 0.0
    for entry in part.entries():
        arrived_s += entry.elapsed_s
        yield arrived_s, entry
