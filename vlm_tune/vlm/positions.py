"""Where each token of a prompt stands, as the model's rotary embedding counts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = ["token_positions"]


def token_positions(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return each token's position, padding not counted: (rows, length), or (3, rows, length) for M-RoPE.

    Args:
        model: The model, bare or wrapped.
        inputs: What `pixels.prepare` returned.
    """
    mask = inputs["attention_mask"]
    multimodal = next((module for module in model.modules() if "get_rope_index" in dir(type(module))), None)
    if multimodal is None:
        return (mask.cumsum(-1) - 1).clamp(min=0)
    accepted = inspect.signature(multimodal.get_rope_index).parameters
    positions: Tensor = multimodal.get_rope_index(**{k: v for k, v in inputs.items() if k in accepted})[0]
    return positions
