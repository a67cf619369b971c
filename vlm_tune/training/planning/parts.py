"""The parts of a model that a training run would adapt, counted on its skeleton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt, PositiveInt

from vlm_tune.families import Family, Kind, Region, linear_names, shapes
from vlm_tune.records import Record
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.full import modules_in_full

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FullRow", "PlanRow", "full_rows", "left_out", "plan_rows", "spelled_scale"]


class PlanRow(Record):
    """One part of the model."""

    region: Region
    """Vision tower, projector or language model."""
    kind: Kind
    """What the layers do in their blocks."""
    hit: NonNegativeInt
    """Linear layers that get an adapter."""
    total: PositiveInt
    """Linear layers of this part."""
    parameters: NonNegativeInt
    """Parameters of those adapters: r x (inputs + outputs) each, and with DoRA a magnitude for every output."""
    share: float
    """Those over the parameters of the base model."""


class FullRow(Record):
    """One module that is trained in full."""

    name: str
    """Its full name."""
    parameters: PositiveInt
    """Its parameters, all of them trained."""
    share: float
    """Those over the parameters of the base model."""


def plan_rows(skeleton: PreTrainedModel, family: Family, config: TrainConfig) -> tuple[PlanRow, ...]:
    """Return a row for every part that the model has, adapted or not.

    Args:
        skeleton: The bare model, which may be on the meta device.
        family: Its architecture.
        config: Which regions and kinds are asked for, and the rank.

    Raises:
        AdapterError: A region or kind is reached nowhere or incompletely; the message lists the names that exist.
    """
    names = linear_names(skeleton)
    asked = family.require(names, config.regions, config.kinds)
    total = _size(skeleton)
    rows = []
    for (region, kind), part in family.modules(names, family.regions, family.kinds).items():
        hit = asked[region, kind].hit if (region, kind) in asked else ()
        parameters = sum(_adapter_size(skeleton, name, config) for name in hit)
        if part.total:
            rows.append(
                PlanRow(
                    region=region,
                    kind=kind,
                    hit=len(hit),
                    total=len(part.total),
                    parameters=parameters,
                    share=parameters / total,
                )
            )
    return tuple(rows)


def full_rows(skeleton: PreTrainedModel, wanted: Sequence[str], *, target_modules: str) -> tuple[FullRow, ...]:
    """Return a row for every module that is trained in full.

    Raises:
        AdapterError: As `modules_in_full`.
    """
    names = modules_in_full(skeleton, wanted, target_modules=target_modules)
    sizes = {name: _size(skeleton.get_submodule(name)) for name in names}
    total = _size(skeleton)
    return tuple(FullRow(name=name, parameters=size, share=size / total) for name, size in sizes.items())


def left_out(skeleton: PreTrainedModel, family: Family) -> tuple[str, ...]:
    """Return the linear layers that never get an adapter; layer numbers are left out where it is all of them."""
    names = linear_names(skeleton)
    left = family.left_out(names)
    elsewhere = set(shapes(set(names) - set(left)))
    short = {name: shapes([name])[0] for name in left}
    return tuple(dict.fromkeys(name if short[name] in elsewhere else short[name] for name in left))


def spelled_scale(config: TrainConfig) -> str:
    """Return the scale of the update with its formula.

    Examples:
        >>> spelled_scale(TrainConfig(r=64, lora_alpha=16))
        'alpha / r = 16 / 64 = 0.25'
        >>> spelled_scale(TrainConfig(r=64, lora_alpha=16, use_rslora=True))
        'alpha / sqrt(r) = 16 / sqrt(64) = 2'
    """
    rank, number = ("sqrt(r)", f"sqrt({config.r})") if config.use_rslora else ("r", f"{config.r}")
    return f"alpha / {rank} = {config.lora_alpha:g} / {number} = {config.scale:g}"


def _adapter_size(skeleton: PreTrainedModel, name: str, config: TrainConfig) -> int:
    layer = skeleton.get_submodule(name)
    magnitudes = layer.out_features if config.use_dora else 0
    return int(config.r * (layer.in_features + layer.out_features) + magnitudes)


def _size(module: PreTrainedModel) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
