"""How far training moved each region of the model from where it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeFloat, PositiveInt

from vlm_tune import _console
from vlm_tune.families import Family
from vlm_tune.records import Record

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor

__all__ = ["Movement", "movement"]

_UNMOVED = 1e-6
"""A smaller update, over the weights, is lost when it is added to them."""


class Movement(Record):
    """How far the adapted layers of one region moved."""

    region: str
    """The region; `in full` for the modules that are trained in full."""
    num_layers: PositiveInt
    """Layers that are trained."""
    mean: NonNegativeFloat
    """Norm of the update over the norm of the weights, the mean over the layers."""
    least: NonNegativeFloat
    """That of the layer that moved least."""

    @property
    def moved(self) -> bool:
        """Whether the update is more than nothing."""
        return self.mean > _UNMOVED


def movement(wrapped: PeftModel, family: Family) -> tuple[Movement, ...]:
    """Return how far each region moved, and say so where one did not.

    The update of an adapted layer is `scale * B A`; its Frobenius norm comes from the r x r products `B^T B` and
    `A A^T`, whose elementwise product sums to its square, so that it is never written out. With DoRA it is
    `m (W + scale B A) / |W + scale B A| - W`, norms taken over the rows.

    Args:
        wrapped: The model with its trained adapters; where it is spread over processes, all must call this.
        family: Its architecture, to name the regions.
    """
    import torch
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    ratios: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for name, module in wrapped.named_modules():
            if isinstance(module, LoraLayer):
                part = family.part_of(name.removeprefix("base_model.model."))
                ratios.setdefault(part[0] if part else "other", []).append(_of_adapter(module))
            elif isinstance(module, ModulesToSaveWrapper):
                ratios.setdefault("in full", []).append(_of_copy(module))
    found = tuple(_region(region, torch.stack(values).tolist()) for region, values in ratios.items())
    for one in found:
        if not one.moved:
            _console.notice(
                f"The {one.region} layers did not move ({one.mean:.1g} of their weights): they are as good as "
                "untrained. Give the region a higher learning rate, or leave it out."
            )
    return found


def _region(region: str, ratios: Sequence[float]) -> Movement:
    return Movement(region=region, num_layers=len(ratios), mean=sum(ratios) / len(ratios), least=min(ratios))


def _of_adapter(layer: Any) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    weight = dequantize_module_weight(layer.get_base_layer())
    if hasattr(weight, "full_tensor"):
        # Spread over several processes, all of which are here.
        weight = weight.full_tensor()
    (name,) = layer.active_adapters
    a, b, scale = layer.lora_A[name].weight.float(), layer.lora_B[name].weight.float(), layer.scaling[name]
    if layer.use_dora[name]:
        moved = weight.float() + scale * (b @ a)
        rows = layer.lora_magnitude_vector[name].weight / moved.norm(dim=1)
        update = (rows[:, None] * moved - weight.float()).norm()
    else:
        update = scale * ((b.T @ b) * (a @ a.T)).sum().clamp(min=0).sqrt()
    return _over(update, [weight])


def _of_copy(module: Any) -> Tensor:
    import torch

    (name,) = module.active_adapters
    before = list(module.original_module.parameters())
    after = list(module.modules_to_save[name].parameters())
    differences = [new.float() - old.float() for new, old in zip(after, before, strict=True)]
    return _over(torch.stack([one.norm() for one in differences]).norm(), before)


def _over(update: Tensor, weights: Sequence[Tensor]) -> Tensor:
    import torch

    norms = [_whole(torch.linalg.vector_norm(weight, dtype=torch.float32)) for weight in weights]
    ratio: Tensor = update / torch.stack(norms).norm().clamp(min=torch.finfo(torch.float32).tiny)
    return ratio


def _whole(tensor: Any) -> Tensor:
    # Of weights that are spread over several processes, all of which are here.
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole
