"""A model that is too large for one GPU, its frozen weights spread over those of all processes (torch's FSDP2).

Each process keeps its part of every layer and gathers a layer when it is needed. Adapters come later and are no part of
it: they are whole in every process, trained and saved as always. Embeddings and the output head stay whole too.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from vlm_tune import _processes
from vlm_tune.errors import ModelError
from vlm_tune.vlm import loading, resident
from vlm_tune.vlm.resident import Resident

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from vlm_tune.vlm.model import VLM

__all__ = ["load_fitting", "load_sharded", "too_large"]

_WEIGHTS = 0.8
"""Of one GPU's memory, what weights may take; the rest is for what is computed."""


def too_large(base: VLM) -> bool:
    """Return whether a model's weights leave no room on one GPU, so that several processes must share them.

    Args:
        base: The model.
    """
    import torch

    if _processes.world_size() == 1 or not torch.cuda.is_available() or _quantized(base):
        return False
    size = _num_parameters(base) * getattr(torch, _dtype(base)).itemsize
    return bool(size > _WEIGHTS * torch.cuda.get_device_properties(_processes.local_rank()).total_memory)


def load_fitting(base: VLM) -> Resident:
    """Return the resident model: whole, or spread over all processes where it must be, and then all must call it.

    Args:
        base: The model.

    Raises:
        ModelError: It cannot be read.
    """
    return load_sharded(base) if too_large(base) else base.load()


def load_sharded(base: VLM) -> Resident:
    """Return the resident model with its layers spread over all processes; all must call it.

    The first process reads the weights into main memory, the only whole copy there is, and hands them round.

    Args:
        base: The model.

    Raises:
        ModelError: It is quantised, or cannot be read.
    """
    if _quantized(base):
        raise ModelError(f"a quantised model cannot be spread over several GPUs; leave {base.name} unquantised")
    device, dtype = loading.pick_device(base.device), _dtype(base)
    return resident.hold(f"{base.source} {dtype} {device} sharded", lambda: _read(base, dtype, device))


def _quantized(base: VLM) -> bool:
    return base.quantization is not None or base.stored_quantization is not None


@lru_cache(maxsize=4)
def _num_parameters(base: VLM) -> int:
    return sum(parameter.numel() for parameter in base.skeleton().parameters())


def _dtype(base: VLM) -> str:
    if base.dtype != "auto":
        return base.dtype
    return loading.pick_dtype(loading.pick_device(base.device), base.config)


def _read(base: VLM, dtype: str, device: str) -> Resident:
    import torch
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    _processes.join()
    whole = _first_reads(base, dtype)
    model = base.skeleton().to(getattr(torch, dtype))
    mesh = init_device_mesh(torch.device(device).type, (_processes.world_size(),))
    for layer in _layers(model):
        # Each is a root of its own, which would stay whole after the forward pass if not told otherwise.
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    model.to_empty(device=device)
    model.tie_weights()
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole.state_dict() if whole else {}, options=options)
    _same_buffers(model, whole)
    del whole
    processor = loading.read_processor(base.folder or base.model, revision=base.revision)
    where = torch.device(device)
    return Resident(model=model, processor=processor, device=where, dtype=getattr(torch, dtype), sharded=True)


def _first_reads(base: VLM, dtype: str) -> PreTrainedModel | None:
    """Return the whole model in main memory, in the first process."""
    read: list[PreTrainedModel] = []

    def go() -> None:
        source = base.folder or base.model
        read.append(loading.read_model(source, base.config, revision=base.revision, device="cpu", dtype=dtype).model)

    _processes.by_one(go)()
    return read[0] if read else None


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what repeats: the blocks of the vision tower and of the language model, and nothing inside of them."""
    from torch.nn import ModuleList

    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, ModuleList) and not name.startswith(inside or ("\0",)):
            inside = (*inside, f"{name}.")
            yield from module


def _same_buffers(model: nn.Module, whole: nn.Module | None) -> None:
    # Tables of rotary positions and the like are in no checkpoint.
    values = _processes.same(dict(whole.named_buffers()) if whole else {})
    for name, buffer in list(model.named_buffers()):
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, values[name].to(buffer.device))
