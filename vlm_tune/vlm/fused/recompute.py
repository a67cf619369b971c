"""Which layers forget their activations in the forward pass and compute them again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.checkpoint import checkpoint

from vlm_tune.vlm.fused.packing import fused_on

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Recompute"]


@dataclass
class Recompute:
    """Selective gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of the first layers of each tower.

    Attributes:
        share: Share of a tower's layers that is computed again; 0 is fastest, 1 takes least memory.
    """

    share: float = 0.0

    def __call__(self, layer: Callable[..., Tensor], place: float, *inputs: Any) -> Tensor:
        """Run a layer.

        Args:
            layer: What to run.
            place: Its place in its tower, from 0 to below 1.
            inputs: What it takes.
        """
        if place >= self.share or not torch.is_grad_enabled():
            return layer(*inputs)

        def again(*inputs: Any) -> Tensor:
            # In the backward pass nobody else has chosen the kernels, and they must be the same.
            with fused_on(inputs[0].device):
                return layer(*inputs)

        # Reentrant checkpointing would leave adapters behind frozen inputs without gradients.
        result: Tensor = checkpoint(again, *inputs, use_reentrant=False)
        return result
