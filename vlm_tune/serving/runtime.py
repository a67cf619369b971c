"""What servers make of an adapter that they load beside the base, in place of the merged model.

As read in the sources of vLLM 0.33.0 and SGLang 0.5.23. vLLM puts adapters on the language model;
`--enable-tower-connector-lora` (from 0.14 on, experimental) adds vision tower and projector for the architectures that
declare it. SGLang puts them on the language model alone. The guide `docs/guides/serve.md` says more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import AdapterError
from vlm_tune.families import Region, family_in, linear_names, shapes
from vlm_tune.serving.records import LostPart, RuntimeAdapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["runtime_adapters", "trained_parameters"]

_TOWER_OPTION = "--enable-tower-connector-lora"
_WITH_TOWER = {"qwen3_vl", "qwen2_5_vl", "lfm2_vl", "smolvlm", "gemma3", "gemma4"}
"""Families whose classes in vLLM 0.33.0 have `supports_tower_connector_lora`."""
_LARGEST_RANK = 512
"""Of vLLM's `--max-lora-rank`."""
_LEFT_OUT: tuple[Region, ...] = ("vision", "projector")
_SHORTHANDS = ("all", "all-linear")
"""All that SGLang takes as `target_modules` beside a list of names."""


def trained_parameters(folder: Path) -> dict[str, int]:
    """Return the trained parameters of every module in an adapter's folder; only the file's header is read.

    Raises:
        AdapterError: The file is missing or cut off.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / "adapter_model.safetensors"
    counts: dict[str, int] = defaultdict(int)
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118
                counts[_module(key)] += math.prod(file.get_slice(key).get_shape())
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"cannot read {path}: {error}; train the adapter or copy it again") from error
    return dict(counts)


def runtime_adapters(
    trained: Mapping[str, int] | Collection[str], skeleton: PreTrainedModel, settings: Mapping[str, Any]
) -> tuple[RuntimeAdapter, ...]:
    """Return what each server would make of an adapter.

    Args:
        trained: What `trained_parameters` returned; or, where that is not known, the names of the trained modules,
            whose shares are then those of one rank for all.
        skeleton: The base model; it may be on the meta device.
        settings: The adapter's `adapter_config.json`; empty where that is not known.
    """
    family = family_in(skeleton)
    parts = {name: family.part_of(name) for name in linear_names(skeleton)}
    regions = {name: part[0] for name, part in parts.items() if part is not None}
    if isinstance(trained, Mapping):
        lost = _lost_parts(trained, regions, counted=True)
    else:
        lost = _lost_parts({name: _size(skeleton, name) for name in trained}, regions, counted=False)
    rank = max(settings.get("r", 0), *(settings.get("rank_pattern") or {}).values(), 0)
    dora = ["it has DoRA"] if settings.get("use_dora") else []
    in_full = ["it has modules trained in full"] if settings.get("modules_to_save") else []
    too_large = [f"its rank {rank} is above {_LARGEST_RANK}"] if rank > _LARGEST_RANK else []
    targets = settings.get("target_modules")
    pattern = ["its target_modules is a pattern"] if isinstance(targets, str) and targets not in _SHORTHANDS else []
    scale = ["scales it by alpha / r, as if it had no rsLoRA"] if settings.get("use_rslora") else []
    by_layer = bool(settings.get("rank_pattern") or settings.get("alpha_pattern"))
    return (
        RuntimeAdapter(
            engine="vllm",
            lost=lost,
            refused=(*dora, *in_full, *too_large),
            kept_by=_TOWER_OPTION if lost and family.name in _WITH_TOWER else None,
        ),
        RuntimeAdapter(
            engine="sglang",
            lost=lost,
            refused=(*dora, *pattern),
            altered=(*scale, *(["takes one rank and alpha for all layers, and these differ"] if by_layer else [])),
        ),
    )


def _lost_parts(sizes: Mapping[str, int], regions: Mapping[str, Region], *, counted: bool) -> tuple[LostPart, ...]:
    by_region: dict[Region, list[str]] = defaultdict(list)
    for module in sizes:
        by_region[_region(module, regions)].append(module)
    total = sum(sizes.values())
    lost: list[LostPart] = []
    for region in _LEFT_OUT:
        if modules := by_region[region]:
            size = sum(sizes[module] for module in modules)
            parameters = size if counted else None
            names = tuple(shapes(modules))
            lost.append(
                LostPart(region=region, modules=len(modules), share=size / total, parameters=parameters, layers=names)
            )
    return tuple(lost)


def _size(skeleton: PreTrainedModel, module: str) -> int:
    """Return what an adapter of rank 1 has in a layer; all of a module that is trained in full."""
    parameters = list(skeleton.get_submodule(module).parameters())
    layer = parameters[0].shape
    return sum(layer) if len(layer) == 2 else sum(parameter.numel() for parameter in parameters)


def _region(module: str, regions: Mapping[str, Region]) -> Region:
    if module in regions:
        return regions[module]
    # A module trained in full, such as an embedding or a norm, is where the layers are that it shares a name with.
    order: Collection[Region] = ("language", "vision", "projector")
    return max(order, key=lambda region: _nearness(module, [name for name in regions if regions[name] == region]))


def _nearness(module: str, layers: Collection[str]) -> int:
    return max((_shared(module.split("."), layer.split(".")) for layer in layers), default=0)


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many words two names begin with together."""
    return sum(1 for _ in takewhile(lambda words: words[0] == words[1], zip(first, second, strict=False)))


def _module(key: str) -> str:
    """Return the module that a saved tensor belongs to."""
    name = key.removeprefix("base_model.model.")
    module, found, _ = name.partition(".lora_")
    return module if found else name.rpartition(".")[0]
