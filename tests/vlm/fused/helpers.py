"""One batch two ways: as the stock model takes it, and packed; and what each makes of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, PreTrainedModel, ProcessorMixin

from vlm_tune.task import Task
from vlm_tune.vlm import fused
from vlm_tune.vlm.fused.packing import Packed, Runs, make_runs, starts
from vlm_tune.vlm.fused.recompute import Recompute
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.prompts import prompt_text

TASK = Task(prompt="What is it?", classes=("crack", "dent"))
CASES = {
    "one photo": ([(64, 64)], [2]),
    "one size": ([(64, 64)] * 3, [2, 2, 2]),
    "many sizes, tilings and answers": (
        [(64, 64), (200, 150), (40, 96), (96, 40), (64, 64), (33, 60)],
        [2, 5, 3, 1, 4, 2],
    ),
    "filled runs": ([(40, 96), (200, 150), (64, 64), (200, 150), (200, 150)], [1, 3, 20, 2, 3]),
}
"""Widths and heights of photos, and how many tokens answer each."""

PIXELS = ("pixel_values", "pixel_attention_mask", "spatial_shapes", "image_grid_thw")


@dataclass(frozen=True)
class Batch:
    """The same sequences for both, in the same order.

    Attributes:
        stock: The stock model's inputs, filled up on the right.
        rows: Which of the stock model's logits are wanted, as (sequence, token).
        targets: The tokens that these should predict.
        packed: The same as one row of tokens.
    """

    stock: dict[str, Tensor]
    rows: tuple[Tensor, Tensor]
    targets: Tensor
    packed: Packed


def load(folder: Path) -> PreTrainedModel:
    """Load a tiny model in float32, its base frozen."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return calm(model)


def calm(model: PreTrainedModel) -> PreTrainedModel:
    """Halve the tiny models' large weights, with which rounding alone moves some gradients by a thousandth."""
    for parameter in model.requires_grad_(False).parameters():
        if parameter.ndim >= 2:
            parameter.mul_(0.5)
    return model.eval()


def adapt(model: PreTrainedModel, target_modules: str) -> PreTrainedModel:
    """Put adapters that already say something on some layers; return the model that has them inside."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=target_modules, init_lora_weights=False)
    return get_peft_model(model, config).base_model.model


def forward_of(model: PreTrainedModel, share: float = 0.0) -> fused.Fused:
    """Return the fused forward pass of a model."""
    forward = fused.fused(model, Recompute(share))
    assert forward is not None
    return forward


def make_batch(
    model: PreTrainedModel, processor: ProcessorMixin, photos: Sequence[bytes], answer_lengths: Sequence[int]
) -> Batch:
    """Ask about photos, each answered by so many arbitrary tokens."""
    prompt = prompt_text(processor, TASK)
    asked = [prepare(processor, [photo], [prompt]) for photo in photos]
    numbers = itertools.count(20)
    answers = [torch.tensor([next(numbers) for _ in range(length)]) for length in answer_lengths]
    order, runs = make_runs(
        [one["input_ids"].shape[1] + len(answer) for one, answer in zip(asked, answers, strict=True)]
    )
    asked, answers = [asked[index] for index in order], [answers[index] for index in order]
    stock = _stock(asked, answers)
    ends = stock["attention_mask"].sum(1).tolist()
    rows = [(row, token) for row, end in enumerate(ends) for token in range(end - len(answers[row]) - 1, end - 1)]
    packed = _packed(model, stock, runs, [end - len(answer) - 1 for end, answer in zip(ends, answers, strict=True)])
    sequences, tokens = torch.tensor(rows).T
    return Batch(stock=stock, rows=(sequences, tokens), targets=torch.cat(answers), packed=packed)


def assert_same_logits(model: PreTrainedModel, batch: Batch) -> None:
    """Hold our logits against the stock model's."""
    with torch.no_grad():
        assert relative_error(fused_logits(forward_of(model), batch), stock_logits(model, batch)) < 1e-5


def assert_same_gradients(model: PreTrainedModel, batch: Batch, share: float = 0.0) -> None:
    """Hold the gradients of all adapters against those that the stock model brings."""
    theirs = gradients(model, stock_logits(model, batch), batch)
    ours = gradients(model, fused_logits(forward_of(model, share), batch), batch)
    assert ours.keys() == theirs.keys()
    errors = {name: relative_error(ours[name], grad) for name, grad in theirs.items()}
    assert max(errors.values()) < 1e-4, max(errors, key=errors.__getitem__)


def stock_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Return the stock model's logits at the wanted rows."""
    return model(**batch.stock).logits[batch.rows]


def fused_logits(forward: fused.Fused, batch: Batch) -> Tensor:
    """Return ours."""
    return forward.logits(forward.answer_states(batch.packed, forward.see(pixels_of(batch))))


def pixels_of(batch: Batch) -> dict[str, Tensor]:
    """Return what `see` takes."""
    return {name: batch.stock[name] for name in PIXELS if name in batch.stock}


def gradients(model: PreTrainedModel, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return the gradient of the answers' loss for every adapter."""
    model.zero_grad()
    functional.cross_entropy(logits, batch.targets).backward()
    found = {name: one.grad for name, one in model.named_parameters() if one.requires_grad}
    assert found
    assert all(grad is not None for grad in found.values()), [name for name, grad in found.items() if grad is None]
    return {name: grad.clone() for name, grad in found.items() if grad is not None}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference, as a share of the largest value."""
    ours, theirs = ours.detach(), theirs.detach()
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 0
    return float((ours - theirs).abs().max() / theirs.abs().max())


def _stock(asked: Sequence[dict[str, Tensor]], answers: Sequence[Tensor]) -> dict[str, Tensor]:
    tokens = [torch.cat([one["input_ids"][0], answer]) for one, answer in zip(asked, answers, strict=True)]
    stock = {
        "input_ids": pad_sequence(tokens, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(one) for one in tokens], batch_first=True),
    }
    if "mm_token_type_ids" in asked[0]:
        kinds = [
            functional.pad(one["mm_token_type_ids"][0], (0, len(a))) for one, a in zip(asked, answers, strict=True)
        ]
        stock["mm_token_type_ids"] = pad_sequence(kinds, batch_first=True)
    for name in PIXELS:
        if name in asked[0]:
            widest = max(one[name].shape[1] for one in asked)
            stock[name] = torch.cat([_filled(one[name], widest) for one in asked])
    return stock


def _filled(tensor: Tensor, columns: int) -> Tensor:
    missing = max(0, columns - tensor.shape[1])
    return torch.cat([tensor, tensor.new_zeros(len(tensor), missing, *tensor.shape[2:])], dim=1)


def _packed(model: PreTrainedModel, stock: dict[str, Tensor], runs: Runs, first_wanted: Sequence[int]) -> Packed:
    lengths = [length for count, length in runs for _ in range(count)]
    ends = stock["attention_mask"].sum(1).tolist()
    places = _places(model, stock)
    # The filling within a run gets tokens and places of its own: they must not matter.
    tokens, positions = [], []
    for row, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        tokens.append(functional.pad(stock["input_ids"][row, :end], (0, length - end), value=9))
        positions.append(functional.pad(places[..., row, :end], (0, length - end)))
    row_of_tokens = torch.cat(tokens)
    tail = max(length - first for length, first in zip(lengths, first_wanted, strict=True))
    slots, at = [], 0
    for length, end, first in zip(lengths, ends, first_wanted, strict=True):
        size = min(tail, length)
        slots += [at + size - length + token for token in range(first, end - 1)]
        at += size
    image_slots = (row_of_tokens == model.config.image_token_id).nonzero()[:, 0]
    assert list(starts(runs)) == [sum(lengths[:row]) for row in range(len(lengths))]
    return Packed(
        tokens=row_of_tokens,
        positions=torch.cat(positions, dim=-1),
        image_slots=image_slots,
        answer_slots=torch.tensor(slots),
        runs=runs,
        tail=tail,
    )


def _places(model: PreTrainedModel, stock: dict[str, Tensor]) -> Tensor:
    if "image_grid_thw" not in stock:
        return torch.arange(stock["input_ids"].shape[1]).expand(stock["input_ids"].shape)
    places, _ = model.model.get_rope_index(
        stock["input_ids"],
        stock["mm_token_type_ids"],
        image_grid_thw=stock["image_grid_thw"],
        attention_mask=stock["attention_mask"],
    )
    return places
