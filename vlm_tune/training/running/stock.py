"""Training batches through transformers' own forward pass: padded, and the reference for every other way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlm_tune.training.running.batches import IGNORED, Batches
from vlm_tune.training.running.objective import Answers
from vlm_tune.training.running.steps import Row
from vlm_tune.vlm.pixels import to_model

if TYPE_CHECKING:
    from vlm_tune.vlm import Resident

__all__ = ["Stock"]


class Stock:
    """The stock forward pass.

    Args:
        resident: The loaded model.
        batches: The examples.

    Attributes:
        recomputes: Whether activations are to be computed again in the backward pass; the trainer sees to it.
    """

    def __init__(self, resident: Resident, batches: Batches) -> None:
        self._model, self._batches = resident.model, batches
        self.recomputes = False

    def answers(self, model: Any, rows: Sequence[Row]) -> Answers:
        """Return what the model says at the answers of some examples.

        Args:
            model: The model as the trainer wraps it.
            rows: The examples.

        Raises:
            ImageError: A photo cannot be read.
        """
        batch = to_model(self._batches.collate([row.index for row in rows]), self._model)
        labels = batch.pop("labels")
        # The logits at a token say which comes next.
        asked = labels.roll(-1, dims=1) != IGNORED
        asked[:, -1] = False
        logits = model(**batch, logits_to_keep=asked, use_cache=False).logits
        weights = logits.new_tensor([row.weight for row in rows], dtype=None).float()
        return Answers(
            logits=logits,
            targets=labels[:, 1:][asked[:, :-1]],
            weights=weights[asked.nonzero()[:, 0]],
        )
