"""Where on disk the weights lie that an adapter names as they are called in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlm_tune.errors import MergeError
from vlm_tune.training.merging.stored import StoredTensor
from vlm_tune.training.merging.updates import Update

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["names_on_disk"]


def names_on_disk(
    updates: Mapping[str, Update], tensors: Mapping[str, StoredTensor], model: PreTrainedModel, *, base: str
) -> dict[str, str]:
    """Return the name on disk of each weight that gets an update, found by the rules transformers reads it by.

    Args:
        updates: The updates, by the name in memory of their weight.
        tensors: The checkpoint's, by their names on disk.
        model: The model, which may be on the meta device.
        base: How messages call it.

    Raises:
        MergeError: A weight is not in the checkpoint, has another shape, is stored in another layout, or is shared with
            another module, which would change too.
    """
    stored, converted = _in_memory(tensors, model)
    _check_shapes(stored, tensors, model)
    _check_shared(updates, model)
    other = [name for name in updates if name in converted]
    if other:
        raise MergeError(
            f"{base} stores {other[0]} in another layout, which transformers converts as it reads; "
            "save the model anew with save_pretrained, train on that, and merge into it"
        )
    missing = [name for name in updates if name not in stored]
    if missing:
        raise MergeError(
            f"{len(missing)} adapted weights are not in the checkpoint of {base}, first {missing[0]}; "
            "is this the base the adapter was trained on?"
        )
    for name, update in updates.items():
        tensor = tensors[stored[name]]
        if update.shape != tensor.shape:
            raise MergeError(
                f"the adapter's update of {name} is for a weight of {update.shape}, and {tensor.file} has one of "
                f"{tensor.shape}; is this the base the adapter was trained on?"
            )
    return {name: stored[name] for name in updates}


def _in_memory(tensors: Mapping[str, StoredTensor], model: PreTrainedModel) -> tuple[dict[str, str], set[str]]:
    """Return the name on disk by the name in memory; and the names in memory that are made of several tensors."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    here = model.state_dict()
    stored: dict[str, str] = {}
    converted: set[str] = set()
    for name in tensors:
        own, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, here)
        if pattern is None:
            stored[own] = name
        else:
            converted.add(own)
    return stored, converted


def _check_shapes(stored: Mapping[str, str], tensors: Mapping[str, StoredTensor], model: PreTrainedModel) -> None:
    for name, here in model.state_dict().items():
        tensor = tensors.get(stored.get(name, ""))
        if tensor is not None and tensor.shape != tuple(here.shape):
            raise MergeError(
                f"{tensor.file} has {tensor.name} with the shape {tensor.shape}, and the model's configuration says "
                f"{tuple(here.shape)}; download the model again"
            )


def _check_shared(updates: Mapping[str, Update], model: PreTrainedModel) -> None:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    for names in owners.values():
        adapted = [name for name in names if name in updates]
        if adapted and len(names) > 1:
            others = " and ".join(name for name in names if name != adapted[0])
            raise MergeError(
                f"{adapted[0]} is the same weight as {others}, which the adapter does not mean to change; "
                "answer with the adapter itself, or train without this layer"
            )
