"""Tensors of every example kept for the whole training: on the GPU, else in main memory, else not at all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from vlm_tune.training.running.batches import memory_bytes
from vlm_tune.training.running.shelf import Shelf

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Store", "clear_gpu", "on_gpu"]

_MAIN_SHARE = 0.25
"""Of the machine's main memory: other processes may train on other GPUs."""

_LEFT_SHARE = 0.25
"""Of a GPU's memory, for what a training leaves there to the one after it: answering needs some in between."""


class Store:
    """Named tensors by example; those of a training before, of the same photos and model, are there already.

    Args:
        device: Where they are used.
        keys: What decides each example's tensors.
        kept: What trainings of this model keep for one another; see `Resident.kept`.
        room: Bytes of a GPU's memory that they may take.
    """

    def __init__(
        self,
        device: torch.device,
        keys: Sequence[Hashable],
        *,
        kept: dict[str, Any] | None = None,
        room: float = 0.0,
    ) -> None:
        self.device, self._keys, self._room = device, keys, room
        kept = {} if kept is None else kept
        self._on_device, self._on_host = _on_device(kept), Shelf.of(kept, "host")
        self.place: Literal["device", "host", "nowhere"] | None = None
        self.fresh: list[int] = []
        self._overflown = False
        if device.type == "cuda":
            self._on_device.shrink(room, self._wanted)

    def __contains__(self, index: int) -> bool:
        return self._keys[index] in self._on_device or self._keys[index] in self._on_host

    @property
    def full(self) -> bool:
        """Whether there is no room for more: none at all, or what came was larger than the first example."""
        return self.place == "nowhere" or self._overflown

    def drop(self) -> None:
        """Keep nothing, and nothing that comes."""
        self._on_device.clear()
        self._on_host.clear()
        self.place = "nowhere"

    def put(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep an example's tensors where all examples' fit, judged by the first; of larger ones as many as do."""
        num_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self.place is None:
            self.place = self._choose(num_bytes)
        if self.place == "nowhere" or self._overflown:
            return
        shelf, limit = self._at(self.place)
        # Views would keep the whole batch alive that they were cut from.
        copy = _pinned if self.place == "host" else _cloned
        copies = {name: copy(tensor, self.device) for name, tensor in tensors.items()}
        kept = shelf.put(self._keys[index], copies, num_bytes=num_bytes, limit=limit, wanted=lambda: self._wanted)
        self._overflown = not kept
        self.fresh.append(index)

    def get(self, index: int) -> dict[str, Tensor]:
        """Return an example's tensors, those of a GPU on the GPU again."""
        key = self._keys[index]
        if (there := self._on_device.get(key)) is not None:
            return dict(there)
        return {
            name: tensor.to(self.device, non_blocking=True) if tensor.is_pinned() else tensor
            for name, tensor in self._on_host.get(key).items()
        }

    def leave(self) -> None:
        """End a training: on the GPU no more is left for the next one than others can do without."""
        import torch

        if self.device.type == "cuda":
            total = torch.cuda.get_device_properties(self.device).total_memory
            self._on_device.shrink(_LEFT_SHARE * total, ())

    def _choose(self, num_bytes: int) -> Literal["device", "host", "nowhere"]:
        total = num_bytes * sum(index not in self for index in range(len(self._keys)))
        for place in ("device", "host"):
            shelf, limit = self._at(place)
            if shelf.num_bytes + total > limit:
                # What only other trainings asked for goes first.
                shelf.shrink(max(0.0, limit - total), self._wanted)
            if shelf.num_bytes + total <= limit:
                return place
        return "nowhere"

    def _at(self, place: Literal["device", "host"]) -> tuple[Shelf, float]:
        if place == "device":
            return self._on_device, self._room if self.device.type == "cuda" else -1.0
        return self._on_host, _MAIN_SHARE * memory_bytes()

    @cached_property
    def _wanted(self) -> Collection[Hashable]:
        return set(self._keys)


def on_gpu(kept: dict[str, Any]) -> int:
    """Return the bytes of a GPU that trainings have left there for the next one."""
    return _on_device(kept).num_bytes


def clear_gpu(kept: dict[str, Any]) -> None:
    """Free them."""
    _on_device(kept).clear()


def _on_device(kept: dict[str, Any]) -> Shelf:
    return Shelf.of(kept, "device")


def _cloned(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.clone()


def _pinned(tensor: Tensor, device: torch.device) -> Tensor:
    # Only pinned memory is copied to a GPU without waiting for what it is doing; grids stay on the processor.
    if tensor.device == device and device.type == "cuda":
        return tensor.cpu().pin_memory()
    return tensor.clone()
