"""Where a photo's tokens stand in a prompt: the same for all photos of one size, so that it is found out once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.positions import token_positions

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["Placed", "Placing", "placing"]

_last: WeakKeyDictionary[Any, tuple[str, Placing]] = WeakKeyDictionary()
"""Of each model, the prompt that was asked about last: every epoch asks about the same sizes again."""

Size = tuple[int, int]
"""Height and width of a photo in pixels."""


@dataclass(frozen=True)
class Placed:
    """A prompt with a photo's tokens in it, on the CPU.

    Attributes:
        tokens: Token ids of shape (S,).
        positions: Of shape (S,) or (3, S), for the rotary embedding.
        image_places: Where the image tokens are.
    """

    tokens: Tensor
    positions: Tensor
    image_places: Tensor

    def followed_by(self, answer: Sequence[int], steps: Sequence[int]) -> Placed:
        """Return the prompt with tokens behind it.

        Args:
            answer: The tokens.
            steps: How far behind the prompt's last token each of them stands.
        """
        import torch

        behind = self.positions[..., -1:] + torch.tensor(steps, dtype=self.positions.dtype)
        return Placed(
            tokens=torch.cat([self.tokens, torch.tensor(answer, dtype=self.tokens.dtype)]),
            positions=torch.cat([self.positions, behind], dim=-1),
            image_places=self.image_places,
        )


class Placing:
    """Finds out, for photos of every size, where their tokens stand in one prompt.

    Args:
        model: The bare model.
        processor: Its processor.
        prompt: The rendered prompt.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, prompt: str) -> None:
        # Kept by the model: it would never be freed otherwise.
        self._model, self.processor, self._prompt = ref(model), processor, prompt
        self._known: dict[Size, Placed] = {}

    def learn(self, sizes: Iterable[Size]) -> None:
        """Ask the processor about the sizes not seen before; a blank photo will do.

        Raises:
            ValueError: The processor refuses a photo of that size.
        """
        import torch

        fresh = [size for size in dict.fromkeys(sizes) if size not in self._known]
        if not fresh:
            return
        model = self._model()
        if model is None:
            raise RuntimeError("the model is gone that the sizes are asked of")
        device = model.device
        blanks = [torch.zeros(3, *size, dtype=torch.uint8, device=device) for size in fresh]
        inputs = prepare(self.processor, blanks, [self._prompt] * len(fresh), device=device)
        text = {name: value.cpu() for name, value in inputs.items() if not value.is_floating_point()}
        positions = token_positions(model, text)
        for row, size in enumerate(fresh):
            there = text["attention_mask"][row].bool()
            tokens = text["input_ids"][row][there]
            self._known[size] = Placed(
                tokens=tokens,
                positions=positions[..., row, :][..., there],
                image_places=(tokens == model.config.image_token_id).nonzero()[:, 0],
            )

    def __getitem__(self, size: Size) -> Placed:
        """Return the prompt with a photo of this size in it."""
        if size not in self._known:
            self.learn([size])
        return self._known[size]


def placing(model: PreTrainedModel, processor: ProcessorMixin, prompt: str) -> Placing:
    """Return what finds out where tokens stand, with the sizes that it knows if the model's last prompt was this one.

    Args:
        model: The bare model.
        processor: Its processor.
        prompt: The rendered prompt.
    """
    known = _last.get(model)
    if known is None or known[0] != prompt or known[1].processor is not processor:
        known = _last[model] = prompt, Placing(model, processor, prompt)
    return known[1]
