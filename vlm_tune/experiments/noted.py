"""What experiments note of every training alike: which answers were right, what it cost, which photos it depends on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, PlainSerializer

from vlm_tune import _processes
from vlm_tune.training.planning.estimate import this_device

if TYPE_CHECKING:
    from vlm_tune.records import Example, Money
    from vlm_tune.training import Adapter

__all__ = ["Rightness", "cost_of", "rows_of"]


def _unpacked(value: Any) -> Any:
    if isinstance(value, str) and not set(value) - {"0", "1"}:
        return tuple(letter == "1" for letter in value)
    return value


def _packed(value: tuple[bool, ...]) -> str:
    return "".join("01"[one] for one in value)


Rightness: TypeAlias = Annotated[
    tuple[bool, ...], BeforeValidator(_unpacked), PlainSerializer(_packed, when_used="json-unless-none")
]
"""Whether each photo was answered right, in the order of the data; `01101...` in a file."""


def cost_of(adapter: Adapter) -> Money | None:
    """Return what a training cost on the GPUs it ran on; None on a processor, and where no price is known."""
    kind = adapter.base.load().device.type
    return this_device(kind).cost(adapter.training.seconds * _processes.world_size())


def rows_of(examples: Iterable[Example]) -> list[tuple[str, str, str]]:
    """Return what an experiment knows photos by: id, label and content.

    Raises:
        ImageError: A photo is missing.
    """
    return [(example.id, example.label, example.content_hash) for example in examples]
