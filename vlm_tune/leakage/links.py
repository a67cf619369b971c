"""What hangs together, directly or through others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

__all__ = ["Links"]

T = TypeVar("T", bound=Hashable)


class Links(Generic[T]):
    """Things and the links between them; two hang together when links lead from one to the other.

    Examples:
        >>> links = Links([("a", "b"), ("d", "c"), ("b", "e")])
        >>> links.groups()
        (('a', 'b', 'e'), ('c', 'd'))
        >>> links.connects("a", "e"), links.connects("a", "c"), links.connects("a", "z")
        (True, False, False)
    """

    def __init__(self, pairs: Iterable[tuple[T, T]] = ()) -> None:
        self._parent: dict[T, T] = {}
        for first, second in pairs:
            self.join(first, second)

    def join(self, first: T, second: T) -> bool:
        """Link two things; return whether they were apart before."""
        one, other = self.root(first), self.root(second)
        self._parent[one] = other
        return one != other

    def join_all(self, things: Iterable[T]) -> None:
        """Link several things into one group."""
        first, *others = things
        for other in others:
            self.join(first, other)

    def connects(self, first: T, second: T) -> bool:
        """Return whether two things hang together."""
        return first == second or self.root(first) == self.root(second)

    def root(self, thing: T) -> T:
        """Return the thing that stands for the group of another."""
        root = thing
        while (above := self._parent.setdefault(root, root)) != root:
            root = above
        while self._parent[thing] != root:
            self._parent[thing], thing = root, self._parent[thing]
        return root

    def groups(self) -> tuple[tuple[T, ...], ...]:
        """Return the groups of two and more, each sorted, in order of their first member."""
        members: defaultdict[T, list[T]] = defaultdict(list)
        for thing in list(self._parent):
            members[self.root(thing)].append(thing)
        return tuple(sorted(tuple(sorted(group)) for group in members.values() if len(group) > 1))  # type: ignore[type-var]
