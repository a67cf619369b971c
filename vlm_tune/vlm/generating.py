"""Free generation: the model writes its answer, greedily, and the task's strict parser reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlm_tune.vlm.pixels import to_model
from vlm_tune.vlm.prompts import end_of_turn_id
from vlm_tune.vlm.scoring import inference

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["generate_batch", "room_for_answer"]

_SPARE_TOKENS = 16
"""Room for "The answer is ...": enough for the parser to judge, little enough to stay quick."""


def room_for_answer(answers: Sequence[Sequence[int]]) -> int:
    """Return how many tokens an answer may take: those of the longest one expected, and a few words."""
    return max(map(len, answers)) + _SPARE_TOKENS


def generate_batch(
    model: PreTrainedModel, processor: ProcessorMixin, inputs: dict[str, Tensor], *, max_new_tokens: int
) -> list[str]:
    """Return what the model writes for each row of prepared inputs, without special tokens.

    Args:
        model: The model, bare or wrapped by PEFT.
        processor: The model's own processor.
        inputs: What `pixels.prepare` returned, padded on the left.
        max_new_tokens: Where an answer is cut off.
    """
    from transformers import GenerationConfig

    own_ends = model.generation_config.eos_token_id
    ends: Sequence[int] = own_ends if isinstance(own_ends, list) else [own_ends] if own_ends is not None else []
    padding = processor.tokenizer.pad_token_id
    end = end_of_turn_id(processor)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=list(dict.fromkeys([end, *ends])),
        pad_token_id=end if padding is None else padding,
    )
    with inference(model):
        written = model.generate(**to_model(inputs, model), generation_config=settings)
    new = written[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True)]
