"""What AdamW trains, and how fast each region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_tune.families import Family
from vlm_tune.training.config import TrainConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from torch.nn import Parameter

__all__ = ["parameter_groups"]


def parameter_groups(wrapped: PeftModel, family: Family, config: TrainConfig) -> list[dict[str, Any]]:
    """Return the groups of trained parameters, each with its learning rate and weight decay, for AdamW.

    Adapters take the learning rate of their region, if the configuration gives one; modules trained in full take
    `learning_rate`. Vectors (norms, biases, DoRA's magnitudes) are not decayed: what decays them to 0 does not
    shrink the update but the layer.

    Args:
        wrapped: The model with its adapters.
        family: The architecture, to name the regions.
        config: The rates.

    Returns:
        Groups with `params`, `lr` and `weight_decay`, in the order of the model; what is frozen is in none.
    """
    groups: dict[tuple[float, float], list[Parameter]] = {}
    for name, parameter in wrapped.named_parameters():
        if parameter.requires_grad:
            rate = _learning_rate(name, family, config)
            decay = config.weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def _learning_rate(parameter: str, family: Family, config: TrainConfig) -> float:
    module, lora, _ = parameter.removeprefix("base_model.model.").partition(".lora_")
    part = family.part_of(module) if lora else None
    return config.learning_rate if part is None else config.region_learning_rates.get(part[0], config.learning_rate)
