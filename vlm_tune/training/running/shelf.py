"""What a training keeps of its photos for the trainings after it, as long as the model stays loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable
from typing import Any

__all__ = ["Shelf"]


class Shelf:
    """Things by key, and how many bytes they take; threads may share it.

    Examples:
        >>> shelf = Shelf()
        >>> shelf.put("a photo", b"...", num_bytes=3, limit=5)
        True
        >>> shelf.put("another", b"...", num_bytes=3, limit=5)
        False
        >>> shelf.put("another", b"...", num_bytes=3, limit=5, wanted=lambda: {"another"})
        True
    """

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, int]] = {}
        self._lock = threading.Lock()
        self.num_bytes = 0

    @classmethod
    def of(cls, kept: dict[str, Any], name: str) -> Shelf:
        """Return the shelf of a name; a new one, if there is none.

        Args:
            kept: What a loaded model keeps: `Resident.kept`.
            name: What is on the shelf.
        """
        shelf: Shelf = kept.setdefault(name, cls())
        return shelf

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable) -> Any:
        """Return what is kept by a key; None if nothing is."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    def put(
        self,
        key: Hashable,
        value: Any,
        *,
        num_bytes: int,
        limit: float,
        wanted: Callable[[], Collection[Hashable]] | None = None,
    ) -> bool:
        """Keep something if there is room for it, and return whether there was.

        Args:
            key: What it is found by.
            value: What to keep.
            num_bytes: How much it takes.
            limit: How much everything on the shelf may take.
            wanted: Returns the keys that are still needed; where there is no room, all others make some.
        """
        with self._lock:
            if key in self._kept:
                return True
            if self.num_bytes + num_bytes > limit and wanted is not None:
                self._drop_but(wanted())
            if self.num_bytes + num_bytes > limit:
                return False
            self._kept[key] = value, num_bytes
            self.num_bytes += num_bytes
            return True

    def shrink(self, limit: float, wanted: Collection[Hashable]) -> None:
        """Drop what is not wanted if all of it takes more than a limit, and everything if that does not help."""
        with self._lock:
            for kept in (wanted, ()):
                if self.num_bytes > limit:
                    self._drop_but(kept)

    def clear(self) -> None:
        """Drop everything."""
        self.shrink(-1, ())

    def _drop_but(self, wanted: Collection[Hashable]) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if key in wanted}
        self.num_bytes = sum(num_bytes for _, num_bytes in self._kept.values())
