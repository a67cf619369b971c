"""The layers of a model as widths, read from its module tree."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune.families import Family, Kind, Region, linear_names
from vlm_tune.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Block", "blocks_of", "features_of", "kinds_of"]


@dataclass(frozen=True)
class Block:
    """One layer of a tower, or one of the projector's, as widths.

    Attributes:
        weights: Parameters of its linear layers.
        width: Width of the stream it reads.
        queries: Width of all query heads together; 0 without attention.
        keys: Width of all key heads together.
        heads: Number of query heads.
        stacked: Whether query, key and value are one linear layer.
        normed: Whether query and key heads are normalised.
        hidden: Inner width of its mlp.
        gated: Whether the mlp has a gate.
        conv: Whether it mixes by a gated convolution.
        adapted: Number of adapted linear layers.
        inputs: Sum of their input widths.
        outputs: Sum of their output widths.
        shared: Widths of what only they read, each counted once however many read it.
    """

    weights: int
    width: int
    queries: int = 0
    keys: int = 0
    heads: int = 0
    stacked: bool = False
    normed: bool = False
    hidden: int = 0
    gated: bool = False
    conv: bool = False
    adapted: int = 0
    inputs: int = 0
    outputs: int = 0
    shared: int = 0


def blocks_of(model: PreTrainedModel, family: Family, region: Region, config: TrainConfig) -> tuple[Block, ...]:
    """Return the layers of a region, in their order.

    Args:
        model: The base model, bare; it may be on the meta device.
        family: Its family.
        region: Which part of it.
        config: Which of its layers are adapted.
    """
    if region not in family.regions:
        return ()
    kinds = kinds_of(family, region)
    hit = set()
    if region in config.regions:
        wanted = [kind for kind in kinds if kind in config.kinds]
        found = family.modules(linear_names(model), [region], wanted) if wanted else {}
        hit = {name for part in found.values() for name in part.hit}
    layers: dict[str, dict[Kind, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (_, kind), part in family.modules(linear_names(model), [region], kinds).items():
        for name in part.total:
            layers[_layer_of(name)][kind].append(name)
    heads = _heads(model, region)
    if region == "projector":
        return tuple(_projection(model, names["attention"], hit) for names in layers.values() if "attention" in names)
    order = sorted(layers, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
    return tuple(_block(model, layers[name], hit, heads) for name in order)


def kinds_of(family: Family, region: Region) -> tuple[Kind, ...]:
    """Return the kinds of linear layer that a region has."""
    return tuple(kind for there, kind in family.layers if there == region)


def _layer_of(name: str) -> str:
    """Return the name of the numbered module that a linear layer is in; of its parent where there is none."""
    found = re.match(r"(.*\.\d+)\.", name)
    return found[1] if found else name.rpartition(".")[0]


def _block(model: nn.Module, names: dict[Kind, list[str]], hit: set[str], heads: int) -> Block:
    linears = {kind: [_linear(model, name) for name in part] for kind, part in names.items()}
    every = [linear for part in linears.values() for linear in part]
    width = linears.get("attention", linears.get("mlp", every))[0][0]
    queries = keys = hidden = 0
    if attention := linears.get("attention"):
        *inner, (queries, _) = attention
        keys = (sum(out for _, out in inner) - queries) // 2
    gated = False
    if mlp := linears.get("mlp"):
        # What leads back into the stream; in some architectures other layers come behind it.
        hidden = max((inputs for inputs, outputs in mlp if outputs == width and inputs != width), default=mlp[-1][0])
        gated = sum(outputs for inputs, outputs in mlp if inputs == width and outputs >= hidden) >= 2 * hidden
    chosen = [_linear(model, name) for part in names.values() for name in part if name in hit]
    return Block(
        weights=sum(inputs * outputs for inputs, outputs in every),
        width=width,
        queries=queries,
        keys=keys,
        heads=heads if queries else 0,
        stacked=len(linears.get("attention", ())) == 2,
        normed=_is_normed(model, names.get("attention", [])),
        hidden=hidden,
        gated=gated,
        conv="conv" in linears,
        adapted=len(chosen),
        inputs=sum(inputs for inputs, _ in chosen),
        outputs=sum(outputs for _, outputs in chosen),
        shared=_shared(names, hit, width, hidden),
    )


def _shared(names: dict[Kind, list[str]], hit: set[str], width: int, hidden: int) -> int:
    """Return the widths of what a layer keeps for its adapters alone, each input once.

    What the output of attention reads is kept by the attention anyway.
    """
    behind = {"attention": 0, "mlp": hidden, "conv": width}
    total = 0
    for kind, part in names.items():
        *first, last = part
        total += width * any(name in hit for name in first) + behind[kind] * (last in hit)
    return total


def _projection(model: nn.Module, names: list[str], hit: set[str]) -> Block:
    linears = [_linear(model, name) for name in names]
    inputs = [_linear(model, name) for name in names if name in hit]
    return Block(
        weights=sum(width * out for width, out in linears),
        width=linears[0][0],
        hidden=sum(out for _, out in linears[:-1]),
        adapted=len(inputs),
        inputs=sum(width for width, _ in inputs),
        outputs=sum(out for _, out in inputs),
        shared=sum(width for width, _ in inputs),
    )


def _linear(model: nn.Module, name: str) -> tuple[int, int]:
    module: Any = model.get_submodule(name)
    return int(module.in_features), int(module.out_features)


def _is_normed(model: nn.Module, attention: list[str]) -> bool:
    if not attention:
        return False
    parent = model.get_submodule(attention[0].rpartition(".")[0])
    return any(re.match(r"q(uery)?_(layer)?norm", name) for name, _ in parent.named_children())


def _heads(model: PreTrainedModel, region: Region) -> int:
    config = model.config.get_text_config() if region == "language" else getattr(model.config, "vision_config", None)
    return int(getattr(config, "num_attention_heads", 0) or getattr(config, "num_heads", 0) or 1)


def features_of(model: PreTrainedModel, family: Family, width: int) -> int:
    """Return the values that vision and projector make of one image token, over all places where they enter."""
    if "projector" not in family.regions:
        return width
    found = family.modules(linear_names(model), ["projector"], kinds_of(family, "projector"))
    last = {_layer_of(name): name for part in found.values() for name in part.total}
    return sum(_linear(model, name)[1] for name in last.values() if _linear(model, name)[1] == width) or width
