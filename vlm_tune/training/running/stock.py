"""Training batches through transformers' own forward pass: padded, and the reference for every other way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vlm_tune.training.running.ahead import Ahead
from vlm_tune.training.running.batches import IGNORED, Batches, EncodedExample
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
        self._ahead = Ahead(batches.photos.shown)
        self.recomputes = False

    def coming(self, rows: Sequence[Row]) -> None:
        """Begin with the photos of examples that will be asked for, where they are changed."""
        self._ahead.coming([row for row in rows if not row.view.is_plain])

    def close(self) -> None:
        """End what was begun."""
        self._ahead.close()

    def answers(self, model: Any, rows: Sequence[Row]) -> Answers:
        """Return what the model says at the answers of some examples.

        Args:
            model: The model as the trainer wraps it.
            rows: The examples.

        Raises:
            ImageError: A photo cannot be read.
        """
        import torch

        encoded = [one for row in rows for one in self._encoded(row)]
        batch = to_model(self._batches.stack(encoded), self._model)
        labels = batch.pop("labels")
        # The logits at a token say which comes next.
        asked = labels.roll(-1, dims=1) != IGNORED
        asked[:, -1] = False
        # Columns, and not the mask itself, which older transformers do not take.
        columns = asked.any(0).nonzero()[:, 0]
        logits = model(**batch, logits_to_keep=columns, use_cache=False).logits[asked[:, columns]]
        weights = [one.weight for row in rows for one in self._batches.photos.answers(row)]
        return Answers(
            logits=logits,
            targets=labels[:, 1:][asked[:, :-1]],
            # In float32, whatever the model's type: a share such as 0.37 is not to be rounded.
            weights=torch.tensor(weights, device=logits.device)[asked.nonzero()[:, 0]],
        )

    def _encoded(self, row: Row) -> list[EncodedExample]:
        if row.view.is_plain:
            return [self._batches[row.index]]
        return self._batches.encode(row, self._ahead.take(row))
