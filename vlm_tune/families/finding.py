"""The layers of a model whose architecture is not in the registry, found by looking at its module tree.

transformers says which module is the language model and which the vision tower (`get_decoder`,
`get_encoder("image")`). Inside them, blocks are what is numbered: linear layers outside of blocks embed patches,
pool or read out, and get no adapter; nor do vision blocks behind the one whose features are used. What is named a
projector, and what lies beside both towers, is the projector. Inside a block, parents and own names tell attention
and convolution; what is neither works on each position by itself, as an mlp does, unless it routes tokens to experts.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from vlm_tune.errors import ModelError
from vlm_tune.families.family import Family, shapes
from vlm_tune.families.layers import Kind, Layers, Part, Region
from vlm_tune.families.registry import FAMILIES, family_of

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["family_in", "find_family", "linear_names"]

_REGIONS: tuple[Region, ...] = ("vision", "projector", "language")
_KINDS: tuple[Kind, ...] = ("attention", "mlp", "conv")

_PROJECTOR = re.compile("merger|projector|connector|aligner|resampler|perceiver|qformer|embed_vision")
_ELSEWHERE = re.compile("audio|speech|lm_head")
_ROUTER = re.compile("router|^(?:shared_expert_)?gate$")
_ATTENTION = re.compile("att(?:entio)?n")
_ADDED = re.compile(r"\.(?:lora_|modules_to_save\.)")
_ATTENTION_NAME = re.compile(r"(?:[qkvo]|qkv|out)(?:_proj)?")


def family_in(model: PreTrainedModel) -> Family:
    """Return the family of a model: the registered one, or what `find_family` finds.

    Args:
        model: The model, without PEFT's wrapper; it may be on the meta device.

    Raises:
        ModelError: As `find_family`.
    """
    model_type = model.config.model_type
    if any(model_type in family.model_types for family in FAMILIES.values()):
        return family_of(model.config)
    return find_family(model)


def find_family(model: PreTrainedModel) -> Family:
    """Return a family made from the model's own module tree; its `registered` is False.

    Args:
        model: The model, without PEFT's wrapper; it may be on the meta device.

    Raises:
        ModelError: No language model with linear layers in numbered blocks is in it.
    """
    towers, names, last = _towers(model), linear_names(model), _last_block(model.config)
    found: dict[Part, list[str]] = defaultdict(list)
    for name in names:
        part = _part(name, towers)
        if part is not None and not (part[0] == "vision" and _block_number(name) > last):
            found[part].append(name)
    name = str(model.config.model_type)
    if ("language", "attention") not in found:
        there = ", ".join(shapes(names)) or "none"
        raise ModelError(
            f"the layers of architecture {name!r} are not known and were not found by looking, so no adapter can "
            f"be planned for it (it can still be evaluated); its linear layers are {there}"
        )
    order = sorted(found, key=lambda part: (_REGIONS.index(part[0]), _KINDS.index(part[1])))
    return Family(name, (name,), {part: _layers(found[part], names) for part in order}, registered=False)


def linear_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all linear layers of a model, which may be on the meta device.

    An adapter that is on changes nothing: its own layers are left out, and the adapted ones keep their names.
    """
    from torch import nn

    names = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    own = (name for name in names if not _ADDED.search(name))
    return tuple(name.replace(".base_layer", "").replace(".original_module", "") for name in own)


def _towers(model: PreTrainedModel) -> dict[str, Region]:
    """Return the names of the language model and, where there is one, the vision tower."""
    inside: tuple[tuple[nn.Module, Region], ...] = (
        (model.get_decoder(), "language"),
        (model.get_encoder("image"), "vision"),
    )
    names = {id(module): name for name, module in model.named_modules()}
    # Without a tower of its own, a model returns itself or its base.
    itself = {"", model.base_model_prefix}
    found = {names[id(module)]: region for module, region in inside if id(module) in names}
    return {name: region for name, region in found.items() if name not in itself}


def _part(name: str, towers: Mapping[str, Region]) -> Part | None:
    tower = next((tower for tower in towers if name.startswith(f"{tower}.")), "")
    region = towers.get(tower)
    words = name.removeprefix(tower).removeprefix(".").split(".")
    if _ELSEWHERE.search(name) or any(_ROUTER.search(word) for word in words):
        return None
    if region != "language" and any(_PROJECTOR.search(word) for word in words):
        return ("projector", "attention")
    if region is None:
        # A second vision tower has blocks; a projector has not.
        return ("vision", _kind(words)) if _in_block(words) else ("projector", "attention")
    return (region, _kind(words)) if _in_block(words) else None


def _in_block(words: list[str]) -> bool:
    # A number at the end counts layers of a list or a sequence, not blocks.
    return any(word.isdigit() for word in words[:-1])


def _kind(words: list[str]) -> Kind:
    *parents, own = words
    for word in reversed(parents):
        if _ATTENTION.search(word):
            return "attention"
        if "conv" in word:
            return "conv"
        if "mlp" in word or "feed_forward" in word:
            return "mlp"
    return "attention" if _ATTENTION_NAME.fullmatch(own) else "mlp"


def _last_block(config: PreTrainedConfig) -> float:
    """Return the number of the last vision block whose output is used; those behind it are dead weight."""
    chosen = getattr(config, "vision_feature_layer", None)
    depth = getattr(getattr(config, "vision_config", None), "num_hidden_layers", None)
    if chosen is None or depth is None:
        return math.inf
    # States are counted from the embeddings on, so that state 1 is what block 0 puts out, and -1 the last one.
    states = chosen if isinstance(chosen, list | tuple) else [chosen]
    return float(max(state if state >= 0 else depth + 1 + state for state in states) - 1)


def _block_number(name: str) -> int:
    return next((int(word) for word in name.split(".") if word.isdigit()), -1)


def _layers(names: Iterable[str], every: Iterable[str]) -> Layers:
    chosen = set(names)
    pattern = "|".join(dict.fromkeys(_any_number(name) for name in names))
    others = [re.escape(name) for name in every if name not in chosen and re.fullmatch(pattern, name)]
    if others:
        pattern = rf"(?!(?:{'|'.join(others)})$)(?:{pattern})"
    return Layers(pattern, pattern)


def _any_number(name: str) -> str:
    return r"\.".join(r"\d+" if word.isdigit() else re.escape(word) for word in name.split("."))
