"""Modules that are trained in full beside the adapters: which they are, and the type they are trained in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import AdapterError
from vlm_tune.families import linear_names, shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["keep_in_float32", "modules_in_full"]


def modules_in_full(model: nn.Module, wanted: Sequence[str], *, target_modules: str) -> tuple[str, ...]:
    """Return the full names of the modules to train in full; one inside another of them is not listed.

    Args:
        model: The bare model, which may be on the meta device.
        wanted: Ends of names, whole words: `merger` is `model.visual.merger` and not `patch_merger`.
        target_modules: Pattern of the layers that get adapters.

    Raises:
        AdapterError: A name is that of no module; or the module holds layers that get adapters, weights that
            another module shares, or quantised weights.
    """
    found = [name for each in wanted for name in _named(model, each)]
    outer = [name for name in dict.fromkeys(found) if not any(name.startswith(f"{other}.") for other in found)]
    for name in outer:
        _check(model, name, target_modules)
    return tuple(outer)


def keep_in_float32(model: nn.Module) -> None:
    """Put the copies that PEFT trains in full into float32, whatever the model's type.

    Late in training an update is smaller than half a step of bfloat16 at most weights, and would be lost. What
    goes in is cast to float32 and what comes out to the model's type, so that the modules around notice nothing.
    """
    from peft.utils import ModulesToSaveWrapper

    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        dtype = next(iter(module.original_module.parameters())).dtype
        for copy in module.modules_to_save.values():
            copy.float()
            _cast_around(copy, dtype)


def _named(model: nn.Module, wanted: str) -> list[str]:
    # Lists of modules are not called, and cannot be replaced by a copy that is.
    lists = ("ModuleList", "ModuleDict", "ParameterList", "ParameterDict")
    names = [
        name
        for name, module in model.named_modules()
        if name and type(module).__name__ not in lists and next(module.parameters(), None) is not None
    ]
    found = [name for name in names if f".{name}".endswith(f".{wanted}")]
    if not found:
        short = [name for name in shapes(names) if not re.search(r"\.(?:\*|\d+)(?:\.|$)", name)]
        raise AdapterError(f"modules_to_save names {wanted!r}, which is no module; there are {', '.join(short)}")
    return found


def _check(model: nn.Module, name: str, target_modules: str) -> None:
    module = model.get_submodule(name)
    inside = [name, *(f"{name}.{each}" for each in linear_names(module) if each)]
    adapted = [each for each in inside if re.fullmatch(target_modules, each)]
    if adapted:
        raise AdapterError(
            f"{name} would be trained in full and get adapters too, first {adapted[0]}; "
            "leave its region or kind out, or take it out of modules_to_save"
        )
    own = {id(parameter) for parameter in module.parameters()}
    tied = [
        other
        for other, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in own and not other.startswith(f"{name}.")
    ]
    if tied:
        raise AdapterError(
            f"{name} shares its weights with {tied[0]}; training it in full would part them. "
            "Take it out of modules_to_save"
        )
    if any(not parameter.is_floating_point() for parameter in module.parameters()):
        raise AdapterError(f"{name} has quantised weights, which cannot be trained; load the base unquantised")


def _cast_around(module: nn.Module, dtype: torch.dtype) -> None:
    import torch

    if dtype == torch.float32:
        return

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return _cast(output, dtype)

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(each, dtype) for each in value)
    if isinstance(value, dict):
        return type(value)(**{name: _cast(each, dtype) for name, each in value.items()})
    return value
