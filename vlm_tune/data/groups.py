"""Groups, which must stay in one split: named by a field, or found in an id by a regular expression."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vlm_tune.errors import DataError
from vlm_tune.records import Example

__all__ = ["finder", "is_pattern", "require_fit"]


def finder(pattern: str) -> Callable[[str], str | None]:
    """Return a function that finds the group in an id, or None.

    Args:
        pattern: A regular expression with one capture group.

    Raises:
        DataError: It is not.

    Examples:
        >>> finder(r"part([0-9]+)")("dent/part12_left.jpg")
        '12'
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group={pattern!r} is not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise DataError(f"group={pattern!r} needs exactly one (...), it has {compiled.groups}")

    def find(text: str) -> str | None:
        match = compiled.search(text)
        return match.group(1) if match else None

    return find


def is_pattern(name: str) -> bool:
    """Return whether `group=` holds a regular expression rather than a field's name."""
    return "(" in name


def require_fit(pattern: str, examples: Sequence[Example]) -> None:
    """Raise a `DataError` when a pattern found no group at all."""
    if examples and all(example.group is None for example in examples):
        raise DataError(f"group={pattern!r} fits no image id (first: {examples[0].id!r})")
