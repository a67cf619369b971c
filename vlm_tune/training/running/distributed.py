"""Training on several processes, one a GPU: gradients added up, and what photos were made into handed round.

Every process holds the whole model and does its share of every optimizer step (`steps.Steps`); the step's loss is the
sum over all, so the gradients are too, and what is trained does not depend on how many there are. They are added once
a step, behind its last backward pass, and not by torch's DistributedDataParallel: that would copy the frozen base
around first, needs every process to make exactly the same passes, and so could not go on with smaller ones in the
process whose memory has run out. What is lost is the overlap with the last backward pass: 61 million float32 gradients
are 245 MB a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from vlm_tune import _processes
from vlm_tune.errors import TrainingError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vlm_tune.training.running.photos import Photos
    from vlm_tune.training.running.store import Store

__all__ = ["add_gradients", "hand_round", "require_same", "without_copies"]

_BUCKET = 64 * 2**20
"""Bytes that are exchanged at once, and copied for it."""


def require_same(value: str) -> None:
    """Check that all processes are about to train the same.

    Raises:
        TrainingError: They are not.
    """
    if len(set(_processes.gathered(value))) > 1:
        raise TrainingError(
            "the processes do not have the same base, configuration, task and photos in the same order; read and "
            "split the data in a way that does not depend on the process"
        )


def without_copies(model: nn.Module) -> nn.Module:
    """Keep accelerate from wrapping a model with DistributedDataParallel, which `add_gradients` does the work of."""
    if _processes.world_size() > 1:
        model._is_accelerate_prepared = True  # type: ignore[assignment]
    return model


def add_gradients(parameters: Iterator[nn.Parameter]) -> None:
    """Replace every trained parameter's gradient by its sum over all processes; in one process, do nothing.

    Args:
        parameters: The model's, in the same order everywhere; a gradient that is missing counts as zero.
    """
    if _processes.world_size() == 1:
        return
    import torch

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([parameter.grad for parameter in trained if parameter.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        torch.distributed.all_reduce(flat)
        _spread(flat, bucket)


def hand_round(store: Store, photos: Photos) -> None:
    """Give every process's store what the others have made; in one process, do nothing.

    If one has no room to keep what there is, none keeps anything.

    Args:
        store: Holds what this process has made.
        photos: Knows their sizes; those of the others are added.
    """
    if _processes.world_size() == 1:
        return
    if "nowhere" in _processes.gathered(store.place):
        store.drop()
        return
    kept = {index: photos.size(index) for index in store.fresh if index in store}
    mine = {index: {name: _described(one, store) for name, one in store.get(index).items()} for index in kept}
    for source, (described, its_sizes) in enumerate(_processes.gathered((mine, kept))):
        for index, size in its_sizes.items():
            photos.learn(index, size)
        left = iter(described.items())
        while some := dict(islice(left, 16)):
            _broadcast(store, some, source)


def _described(tensor: Tensor, store: Store) -> Tensor | tuple[torch.Size, torch.dtype]:
    # What stays off the GPU is small and travels with the description of the rest.
    return (tensor.shape, tensor.dtype) if tensor.device == store.device else tensor


def _broadcast(store: Store, described: Mapping[int, Mapping[str, Any]], source: int) -> None:
    """Let one process send some examples' tensors, and the others keep them."""
    import torch

    sends = source == _processes.rank()
    tensors = {index: store.get(index) if sends else _room(its, store) for index, its in described.items()}
    sent = [one for its in tensors.values() for one in its.values() if one.device == store.device]
    for bucket in _buckets(sent):
        flat = torch.cat([one.flatten() for one in bucket])
        torch.distributed.broadcast(flat, source)
        if not sends:
            _spread(flat, bucket)
    if not sends:
        for index, its in tensors.items():
            store.put(index, its)


def _room(described: Mapping[str, Any], store: Store) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.empty(what[0], dtype=what[1], device=store.device) if isinstance(what, tuple) else what
        for name, what in described.items()
    }


def _spread(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    import torch

    parts = torch.split(flat, [one.numel() for one in tensors])
    torch._foreach_copy_(list(tensors), [part.view_as(one) for part, one in zip(parts, tensors, strict=True)])


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the tensors in groups of one type and a limited size."""
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
        group: list[Tensor] = []
        for tensor in tensors:
            if tensor.dtype != dtype:
                continue
            if group and sum(one.nbytes for one in group) + tensor.nbytes > _BUCKET:
                yield group
                group = []
            group.append(tensor)
        if group:
            yield group
