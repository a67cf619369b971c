"""What spreads batches of work over processes and machines, as seen from the rooms that have such work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

__all__ = ["Spreads"]

T = TypeVar("T")
R = TypeVar("R")


@runtime_checkable
class Spreads(Protocol):
    """A backend that works on batches of items, such as photos to answer: `RayBackend`, `LocalBackend`."""

    def map_batches(self, work: Callable[[Sequence[T]], R], items: Sequence[T], *, most: int) -> Iterator[R]:
        """Yield what the work makes of each batch, in any order; closing the iterator stops the work.

        Args:
            work: Takes a batch. It is sent to each process once and keeps there what it has loaded.
            items: What to work on; they must pickle.
            most: Largest size of a batch.

        Raises:
            Exception: Whatever the work raises.
        """
