"""Free generation: the model writes its answer, greedily, and the task's strict parser reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.vlm.pixels import prepare, to_model
from vlm_tune.vlm.prompts import end_of_turn_id

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["Generator", "room_for_answer"]

_SPARE_TOKENS = 16
"""Room for "The answer is ...": enough for the parser to judge, little enough to stay quick."""


def room_for_answer(answers: Sequence[Sequence[int]]) -> int:
    """Return how many tokens an answer may take: those of the longest one expected, and a few words."""
    return max(map(len, answers)) + _SPARE_TOKENS


class Generator:
    """Answers one batch of photos after the other in the model's own words, without special tokens.

    Args:
        model: The model, bare or wrapped by PEFT.
        processor: The model's own processor.
        prompt: The rendered prompt.
        max_new_tokens: Where an answer is cut off.
    """

    def __init__(self, model: PreTrainedModel, processor: ProcessorMixin, prompt: str, *, max_new_tokens: int) -> None:
        from transformers import GenerationConfig

        self._model, self._processor, self._prompt = model, processor, prompt
        own_ends = model.generation_config.eos_token_id
        ends: Sequence[int] = own_ends if isinstance(own_ends, list) else [own_ends] if own_ends is not None else []
        padding = processor.tokenizer.pad_token_id
        end = end_of_turn_id(processor)
        self._settings = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(dict.fromkeys([end, *ends])),
            pad_token_id=end if padding is None else padding,
        )

    def read(self, photo: Image) -> Image:
        """Return a photo as `prepare` takes it."""
        return photo

    def prepare(self, photos: Sequence[Image]) -> dict[str, Tensor]:
        """Return the model's inputs for a batch of photos."""
        return prepare(self._processor, photos, [self._prompt] * len(photos), device=self._model.device)

    def num_tokens(self, inputs: dict[str, Tensor]) -> int:
        """Return how many tokens a batch's prompts are."""
        return inputs["input_ids"].numel()

    def answer(self, inputs: dict[str, Tensor]) -> list[str]:
        """Return what the model writes for each photo."""
        written = self._model.generate(**to_model(inputs, self._model), generation_config=self._settings)
        new = written[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self._processor.tokenizer.batch_decode(new, skip_special_tokens=True)]
