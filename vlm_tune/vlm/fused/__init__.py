"""This library's own forward passes, for the architectures it knows: packed, fused, and equal to the stock ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from vlm_tune.vlm.fused.packing import Packed
    from vlm_tune.vlm.fused.recompute import Recompute

__all__ = ["AGREE", "ARCHITECTURES", "Fused", "adapted_layers", "fused", "warm_up"]

AGREE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.03}
"""Largest difference between fused and stock logits, over the stock logits' norm, that rounding explains."""

ARCHITECTURES = {"qwen3_vl": "Qwen3VLForConditionalGeneration", "lfm2_vl": "Lfm2VlForConditionalGeneration"}
"""Those that have a forward pass here: the configuration's `model_type`, and the model's class."""


class Fused(Protocol):
    """A forward pass in two halves, so that what the images say can be kept."""

    def see(self, pixels: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return what the images say: tensors of shape (image tokens, hidden size).

        Args:
            pixels: The image tensors of the model's processor; grids and shapes on the CPU, the rest on the device.
        """

    def answer_states(self, packed: Packed, features: Sequence[Tensor]) -> Tensor:
        """Return what the head makes logits of, at the rows that are wanted, of shape (rows, hidden size).

        Args:
            packed: The sequences.
            features: What `see` returned for their images, in the same order; nothing where there are none.
        """

    def logits(self, states: Tensor) -> Tensor:
        """Return the logits of some of `answer_states`' rows, of shape (rows, vocabulary)."""


def adapted_layers(model: PreTrainedModel) -> frozenset[str] | None:
    """Return the names of the layers that carry an adapter; None where one is of a kind that is not known here.

    Args:
        model: The bare model; PEFT's layers may be in it.
    """
    if not hasattr(model, "peft_config"):
        return frozenset()
    found = set()
    for name, module in model.named_modules():
        if hasattr(module, "modules_to_save"):
            return None
        if not hasattr(module, "lora_A") or module.disable_adapters:
            continue
        if module.merged or len(module.active_adapters) != 1 or module.lora_variant or any(module.lora_bias.values()):
            return None
        found.add(name)
    return frozenset(found)


def warm_up(config: PreTrainedConfig, dtype: str, device: str) -> None:
    """Get kernels and libraries ready in the background, where the fused forward pass will run on a GPU.

    Args:
        config: The model's configuration.
        dtype: The type of its weights.
        device: Where it will be.
    """
    if device.startswith("cuda") and dtype != "float32" and config.model_type in ARCHITECTURES:
        import torch

        from vlm_tune.vlm.fused import ahead

        ahead.warm_up(config, getattr(torch, dtype), torch.device(device))


def fused(model: PreTrainedModel, recompute: Recompute) -> Fused | None:
    """Return the fused forward pass of a model, or None where there is none.

    There is one for two architectures, whose weights are neither quantised nor spread over several processes.

    Args:
        model: The bare model; PEFT's layers may be in it.
        recompute: Which layers are computed again in the backward pass.
    """
    spread = any(hasattr(parameter, "to_local") for parameter in model.parameters())
    if spread or getattr(model, "is_quantized", False):
        return None
    name = type(model).__name__
    if name == ARCHITECTURES["qwen3_vl"]:
        from vlm_tune.vlm.fused.qwen3_vl import Qwen3VL

        return Qwen3VL(model, recompute)
    if name == ARCHITECTURES["lfm2_vl"]:
        from vlm_tune.vlm.fused.lfm2_vl import Lfm2VL

        return Lfm2VL(model, recompute)
    return None
