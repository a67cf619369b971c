"""Tensors of every example kept for the whole training: on the GPU, else in main memory, else not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from vlm_tune.training.running.batches import memory_bytes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Store"]

_MAIN_SHARE = 0.25
"""Of the machine's main memory: other processes may train on other GPUs."""


class Store:
    """Named tensors by example.

    Args:
        device: Where they are used.
        num_examples: How many examples there will be.
        room: Bytes of a GPU's memory that they may take.
    """

    def __init__(self, device: torch.device, num_examples: int, *, room: float = 0.0) -> None:
        self.device, self._num_examples, self._room = device, num_examples, room
        self._kept: dict[int, Mapping[str, Tensor]] = {}
        self._num_bytes = 0
        self.place: Literal["device", "host", "nowhere"] | None = None

    def __contains__(self, index: int) -> bool:
        return index in self._kept

    @property
    def full(self) -> bool:
        """Whether there is no room for more: none at all, or what came was larger than the first example."""
        return self.place == "nowhere" or self._num_bytes > self._limit

    def drop(self) -> None:
        """Keep nothing, and nothing that comes."""
        self._kept.clear()
        self.place = "nowhere"

    def put(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep an example's tensors where all examples' fit, judged by the first; of larger ones as many as do."""
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self.place is None:
            self.place = self._choose(num_bytes)
        self._num_bytes += num_bytes
        if self.full:
            return
        if self.place == "device":
            # Views would keep the whole batch alive that they were cut from.
            self._kept[index] = {name: tensor.clone() for name, tensor in tensors.items()}
        elif self.place == "host":
            self._kept[index] = {name: _pinned(tensor, self.device) for name, tensor in tensors.items()}

    def get(self, index: int) -> dict[str, Tensor]:
        """Return an example's tensors, those of a GPU on the GPU again."""
        return {
            name: tensor.to(self.device, non_blocking=True) if self.place == "host" and tensor.is_pinned() else tensor
            for name, tensor in self._kept[index].items()
        }

    def _choose(self, num_bytes: int) -> Literal["device", "host", "nowhere"]:
        total = num_bytes * self._num_examples
        if self.device.type == "cuda" and total <= self._room:
            return "device"
        return "host" if total <= _MAIN_SHARE * memory_bytes() else "nowhere"

    @property
    def _limit(self) -> float:
        return self._room if self.place == "device" else _MAIN_SHARE * memory_bytes()


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    # Only pinned memory is copied to a GPU without waiting for what it is doing; grids stay on the processor.
    if tensor.device == device and device.type == "cuda":
        return tensor.cpu().pin_memory()
    return tensor.clone()
