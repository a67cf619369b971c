"""From examples to training batches: the prompt exactly as scoring asks it, then the answer, nothing more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm_tune import _processes
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.running.photos import Photos
from vlm_tune.training.running.steps import Row
from vlm_tune.vlm import pixels, prompts

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import ProcessorMixin

__all__ = ["IGNORED", "Batches", "EncodedExample", "concatenate", "memory_bytes"]

IGNORED = -100
"""The label that the loss skips."""

_SHARE = 0.25
"""Of the machine's main memory, for decoded photos and for encoded examples each."""


@dataclass(frozen=True)
class EncodedExample:
    """One example as tensors.

    Attributes:
        tokens: One vector of length S a model input: the prompt's tokens and behind them the answer's.
        pixels: The image's tensors, stacked along their first dimension in a batch.
        num_trained: How many tokens at the end are the answer and the end of turn.
    """

    tokens: Mapping[str, torch.Tensor]
    pixels: Mapping[str, torch.Tensor]
    num_trained: int

    @property
    def num_bytes(self) -> int:
        """Memory the example takes."""
        return sum(tensor.nbytes for tensor in (*self.tokens.values(), *self.pixels.values()))


class Batches:
    """The examples of one training run as batches, for TRL's trainer.

    The prompt goes through the very functions that scoring uses (`vlm.prompts`, `vlm.pixels`), so the model
    is trained on exactly what it will be asked. Images are decoded and cut into patches once: encoded
    examples stay in memory when all of them fit into a quarter of the machine's, otherwise they are made anew
    each time, as photos that are changed are.

    Args:
        examples: The labelled photos.
        processor: The model's processor.
        task: The question.
        dtype: The model's floating-point type; pixels are kept in it, as the model would cast them anyway.
        device: Where photos are resized and cut into patches.
        kept: What trainings of this model keep for one another, `Resident.kept`; None keeps nothing for others.

    Attributes:
        photos: The photos, before they are cut into patches.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        processor: ProcessorMixin,
        task: Task,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        kept: dict[str, Any] | None = None,
    ) -> None:
        self.examples = tuple(examples)
        self.task = task
        self.processor = processor
        self._dtype, self._device = dtype, device
        self._prompt = prompts.prompt_text(processor, task)
        self._answers = {
            label: prompts.answer_ids(processor, label) for label in dict.fromkeys(one.label for one in self.examples)
        }
        self.kept = {} if kept is None else kept
        self.photos = Photos(
            self.examples,
            max_pixels=task.max_pixels,
            kept=self.kept,
            limit=_SHARE * memory_bytes(),
        )
        self._kept: dict[int, EncodedExample] = {}
        self._keep: bool | None = None

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> EncodedExample:
        """Return one encoded example.

        Raises:
            ImageError: The photo cannot be read.
        """
        if index in self._kept:
            return self._kept[index]
        (encoded,) = self.encode(Row(index, 1.0))
        if self._fits(encoded):
            self._kept[index] = encoded
        return encoded

    def encode(self, row: Row, photo: NDArray[np.uint8] | None = None) -> list[EncodedExample]:
        """Return a photo as it is seen with each of its answers, one encoded example an answer.

        Args:
            row: Which photo, and how it is seen.
            photo: It, if it is there already.

        Raises:
            ImageError: A photo cannot be read.
        """
        from PIL import Image

        shown = Image.fromarray(self.photos.shown(row) if photo is None else photo)
        inputs = pixels.prepare(self.processor, [shown], [self._prompt], device=self._device)
        return [self._answered(inputs, self._answers[one.label]) for one in self.photos.answers(row)]

    def num_tokens(self, row: Row) -> float:
        """Return how many tokens of a photo are trained: of a mixed one, the mean of its two answers by their shares.

        Raises:
            ImageError: A photo cannot be read.
        """
        return sum(one.share * len(self._answers[one.label]) for one in self.photos.answers(row))

    @property
    def kept_in_memory(self) -> bool:
        """Whether all examples fit into memory, judged by the first."""
        return self._fits(self[0])

    def answer(self, label: str) -> list[int]:
        """Return the token ids trained for an example's label: the label string and the end of turn."""
        return self._answers[label]

    def collate(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return one batch, padded on the right.

        Args:
            indices: Which examples.

        Returns:
            The model's inputs: `input_ids`, `attention_mask` and `labels` of shape (B, S), `labels` being
            -100 everywhere but on the answer and its end of turn; and whatever the processor makes of the
            images.
        """
        return self.stack([self[index] for index in indices])

    def stack(self, encoded: Sequence[EncodedExample]) -> dict[str, torch.Tensor]:
        """Return encoded examples as one batch; see `collate`."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        padding = {"input_ids": self.processor.tokenizer.pad_token_id or 0}
        batch = {
            name: pad_sequence(
                [one.tokens[name] for one in encoded], batch_first=True, padding_value=padding.get(name, 0)
            )
            for name in encoded[0].tokens
        }
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for row, one in enumerate(encoded):
            end = len(one.tokens["input_ids"])
            trained = slice(end - one.num_trained, end)
            labels[row, trained] = batch["input_ids"][row, trained]
        batch["labels"] = labels
        for name in encoded[0].pixels:
            batch[name] = concatenate([one.pixels[name] for one in encoded])
        return batch

    def _answered(self, inputs: Mapping[str, torch.Tensor], answer: Sequence[int]) -> EncodedExample:
        import torch

        tokens, rest = {}, {}
        for name, tensor in inputs.items():
            if tensor.shape == inputs["input_ids"].shape:
                # Of the inputs that run along the text, only the mask is 1 on ordinary words.
                behind = answer if name == "input_ids" else [int(name == "attention_mask")] * len(answer)
                tokens[name] = torch.cat([tensor[0], torch.tensor(behind, dtype=tensor.dtype)])
            else:
                rest[name] = tensor.to("cpu", self._dtype if tensor.is_floating_point() else tensor.dtype)
        return EncodedExample(tokens=tokens, pixels=rest, num_trained=len(answer))

    def _fits(self, encoded: EncodedExample) -> bool:
        if self._keep is None:
            self._keep = encoded.num_bytes * len(self) <= _SHARE * memory_bytes()
        return self._keep


def concatenate(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return image tensors as one, filled up where a processor has padded each image to its own size only."""
    import torch

    longest = max(tensor.shape[1] for tensor in tensors) if tensors[0].ndim > 1 else 0
    padded = []
    for tensor in tensors:
        if tensor.ndim > 1 and tensor.shape[1] < longest:
            short = tensor.new_zeros(tensor.shape[0], longest - tensor.shape[1], *tensor.shape[2:])
            tensor = torch.cat([tensor, short], dim=1)
        padded.append(tensor)
    return torch.cat(padded)


def memory_bytes() -> int:
    """Return the main memory of this machine, and this process's part of it where several train there."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _processes.local_world_size()
    except (AttributeError, ValueError, OSError):
        # Systems without sysconf: assume a small machine.
        return 8 * 2**30
