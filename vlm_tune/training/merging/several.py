"""Several adapters of one base in one model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune import _processes
from vlm_tune.records import Example
from vlm_tune.training.merging.merge import merge
from vlm_tune.training.merging.parts import parts_of
from vlm_tune.vlm import VLM

if TYPE_CHECKING:
    from vlm_tune.training.adapter import Adapter

__all__ = ["merge_adapters"]


def merge_adapters(
    adapters: Sequence[tuple[Adapter, float]], path: Path | str, *, probe: Sequence[Example] | None = None
) -> VLM:
    """Write a base and several of its adapters, each with a weight, as one model, and prove that it is their sum.

    Each weight becomes W plus the sum of all adapters' weighted updates. The proof is that of `Adapter.merge`: the
    merged model must answer as the base does with all adapters on at their weights.

    Args:
        adapters: The adapters, of one base and one task, and what the update of each is multiplied by: 1 adds it as it
            was trained, a negative number takes it away. Only LoRA and rsLoRA can be weighted.
        path: Folder for the merged model.
        probe: Photos whose answers must agree before and after; None takes the training photos that the adapters
            still have from being trained in this process, and an empty list proves the weights alone.

    Raises:
        MergeError: The adapters do not go together, there are no photos to prove it on, or the proof fails; nothing is
            left at `path`.

    Examples:
        >>> merge_adapters([(first, 0.5), (second, 0.5)], "runs/damage/both")  # doctest: +SKIP
    """
    parts = parts_of(adapters)
    if probe is None:
        known = {example.id: example for adapter, _ in adapters for example in adapter.probe}
        probe = tuple(known.values()) or None
    _processes.by_one(merge)(parts, path, probe=probe)
    base = parts.base.unquantized()
    return base.made_into(path, name=f"{base.name}-tuned")
