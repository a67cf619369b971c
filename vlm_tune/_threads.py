"""Work done ahead in threads, in order, and never more of it than is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[_Item], _Result], items: Iterable[_Item], *, depth: int
) -> Iterator[_Result]:
    """Map in order, with up to `depth` items worked on ahead of the one that is used.

    Examples:
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(ahead(pool, abs, [-1, 2, -3], depth=2))
        [1, 2, 3]
    """
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > depth:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
