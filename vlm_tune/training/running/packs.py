"""Prompts with their answers as one row of tokens, on their way to a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune.vlm.placing import Placed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vlm_tune.vlm.fused.packing import Packed

__all__ = ["Sequenced", "moved", "pack", "to_device"]


@dataclass(frozen=True)
class Sequenced(Placed):
    """Prompt and answer of one example; the same for all photos of one size with one label.

    Attributes:
        num_trained: How many tokens at the end are trained.
    """

    num_trained: int


def pack(sequences: Sequence[Sequenced], runs: Sequence[tuple[int, int]]) -> tuple[Packed, Tensor, list[int]]:
    """Return sequences as one row, the tokens that should come, and how many of them each has."""
    import torch

    from vlm_tune.vlm.fused.packing import Packed, starts

    lengths = [length for count, length in runs for _ in range(count)]
    tokens = torch.cat([_filled(one.tokens, to) for one, to in zip(sequences, lengths, strict=True)])
    positions = torch.cat([_filled(one.positions, to) for one, to in zip(sequences, lengths, strict=True)], dim=-1)
    places = [start + one.image_places for start, one in zip(starts(tuple(runs)), sequences, strict=True)]
    # The logits at a token say which comes next.
    firsts = [len(one.tokens) - one.num_trained - 1 for one in sequences]
    tail = max(length - first for length, first in zip(lengths, firsts, strict=True))
    ends = itertools.accumulate(min(tail, length) for length in lengths)
    asked = [
        torch.arange(one.num_trained) + end - length + first
        for one, first, length, end in zip(sequences, firsts, lengths, ends, strict=True)
    ]
    targets = torch.cat([one.tokens[-one.num_trained :] for one in sequences])
    packed = Packed(
        tokens=tokens,
        positions=positions,
        image_slots=torch.cat(places),
        answer_slots=torch.cat(asked),
        runs=tuple(runs),
        tail=tail,
    )
    return packed, targets, [one.num_trained for one in sequences]


def _filled(values: Tensor, length: int) -> Tensor:
    missing = length - values.shape[-1]
    if not missing:
        return values
    import torch

    return torch.cat([values, values[..., -1:].expand(*values.shape[:-1], missing)], dim=-1)


def moved(packed: Packed, move: Callable[[Tensor], Tensor]) -> Packed:
    """Return packed sequences with every tensor moved."""
    import dataclasses

    import torch

    there: dict[str, Any] = {
        field.name: move(value)
        for field in dataclasses.fields(packed)
        if isinstance(value := getattr(packed, field.name), torch.Tensor)
    }
    return dataclasses.replace(packed, **there)


def to_device(tensor: Tensor, *, device: torch.device) -> Tensor:
    """Return a tensor on a device."""
    # From pinned memory the copy does not wait for what the GPU is doing.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
