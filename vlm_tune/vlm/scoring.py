"""Exact closed-set scoring: the log-probability of every label given the photo and the prompt.

The score of a label is the sum of the log-probabilities of its tokens and of the token that ends the turn,
so labels of several tokens, and labels that begin other labels, compete fairly:

    score(label) = sum over t of log p(token_t | photo, prompt, token_1 .. token_{t-1})

`reference_scores` does just that, one whole forward pass per photo and label. `score_batch` reads photo and
prompt once and continues from the kept state with the labels' tokens only; the tests hold the two together.
Models whose kept state cannot be continued by several tokens at once are found out by trying it on a few
tokens, and take the long way.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlm_tune._console import notice
from vlm_tune.task import Task
from vlm_tune.vlm.pixels import prepare, to_model
from vlm_tune.vlm.prompts import answer_ids, prompt_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["SEMANTICS", "inference", "reference_scores", "score_batch", "score_labels"]

SEMANTICS = "sum of label token log-probabilities with end of turn, v1"
"""What a score means; part of every fingerprint, so that answers scored otherwise are never mixed in."""

_LABELS_PER_PASS = 8
"""The kept state is copied once per label in a pass: this bounds memory, and shrinks with the batch."""

_continues: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def score_labels(model: PreTrainedModel, processor: ProcessorMixin, images: Sequence[bytes], task: Task) -> Tensor:
    """Return the log-probability of every class for every photo, in one batch.

    Args:
        model: The model, bare or wrapped by PEFT.
        processor: The model's own processor.
        images: Encoded photos.
        task: The question.

    Returns:
        Float32 CPU tensor of shape (len(images), len(task.classes)).
    """
    inputs = prepare(processor, images, [prompt_text(processor, task)] * len(images))
    return score_batch(model, inputs, [answer_ids(processor, label) for label in task.classes])


def score_batch(model: PreTrainedModel, inputs: dict[str, Tensor], answers: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-probability of every answer for every row of prepared inputs.

    Args:
        model: The model, bare or wrapped by PEFT.
        inputs: What `prepare` returned, padded on the left.
        answers: The tokens of each answer, the end of turn included.

    Returns:
        Float32 CPU tensor of shape (rows, len(answers)).
    """
    import torch

    with inference(model):
        inputs = to_model(inputs, model)
        if not _can_continue(model, answers):
            return torch.stack([_full_forward(model, inputs, answer) for answer in answers], dim=1).cpu()
        positions = _positions(model, inputs)
        read = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        chunks = [answers[start : start + _LABELS_PER_PASS] for start in range(0, len(answers), _LABELS_PER_PASS)]
        scores = [
            _continue(model, read, chunk, inputs["attention_mask"], _next_position(positions)) for chunk in chunks
        ]
        return torch.cat(scores, dim=1).cpu()


def reference_scores(model: PreTrainedModel, processor: ProcessorMixin, images: Sequence[bytes], task: Task) -> Tensor:
    """Return the same as `score_labels` by brute force: one whole pass per photo and label, nothing shared.

    Returns:
        Float32 CPU tensor of shape (len(images), len(task.classes)).
    """
    import torch

    prompt = prompt_text(processor, task)
    answers = [answer_ids(processor, label) for label in task.classes]
    with inference(model):
        rows = []
        for image in images:
            inputs = to_model(prepare(processor, [image], [prompt]), model)
            rows.append(torch.cat([_full_forward(model, inputs, answer) for answer in answers]))
        return torch.stack(rows).cpu()


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout and gradients off inside the block, and leave the model in the mode it was in."""
    import torch

    training = model.training
    model.eval()
    try:
        # Not inference_mode: what the model keeps between calls must stay usable for training.
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _continue(
    model: PreTrainedModel, read: Any, answers: Sequence[Sequence[int]], prompt_mask: Tensor, start: Tensor
) -> Tensor:
    """Score some answers from the state left by the prompt; returns (rows, len(answers))."""
    import torch

    rows, device = len(prompt_mask), prompt_mask.device
    width = max(map(len, answers))
    # Filled up on the right: a causal model never looks there, so nothing needs masking.
    tokens = torch.tensor([[*answer, *[answer[-1]] * (width - len(answer))] for answer in answers], device=device)
    real = torch.tensor([[step < len(answer) for step in range(width)] for answer in answers], device=device)
    first: Tensor = read.logits[:, -1].float().log_softmax(-1)[:, tokens[:, 0]]

    each_row = torch.arange(rows, device=device).repeat_interleave(len(answers))
    state = copy.deepcopy(read.past_key_values)
    state.reorder_cache(each_row)
    fed = tokens[:, :-1].repeat(rows, 1)
    logits = model(
        input_ids=fed,
        attention_mask=torch.cat([prompt_mask[each_row], torch.ones_like(fed)], dim=1),
        position_ids=start[..., each_row, :] + torch.arange(width - 1, device=device),
        past_key_values=state,
        use_cache=True,
    ).logits
    later = _log_probability(logits, tokens[:, 1:].repeat(rows, 1)).view(rows, len(answers), -1)
    return first + later.masked_fill(~real[:, 1:], 0).sum(-1)


def _full_forward(model: PreTrainedModel, inputs: dict[str, Tensor], answer: Sequence[int]) -> Tensor:
    """Score one answer by a pass over photo, prompt and answer together; returns (rows,)."""
    import torch

    rows, prompt_length = inputs["input_ids"].shape
    tokens = torch.tensor(answer, device=model.device).expand(rows, -1)
    appended = dict(inputs)
    for name in ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in inputs:
            fill = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}.get(name, tokens * 0)
            appended[name] = torch.cat([inputs[name], fill.to(inputs[name].dtype)], dim=1)
    logits = model(**appended, use_cache=False).logits[:, prompt_length - 1 : -1]
    return _log_probability(logits, tokens).sum(-1)


def _log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    # In float32 whatever the model's type: differences between labels are small against the logits' rounding.
    return logits.float().log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def _positions(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return each token's position, padding not counted: (rows, length), or (3, rows, length) for M-RoPE."""
    mask = inputs["attention_mask"]
    multimodal = next((module for module in model.modules() if "get_rope_index" in dir(type(module))), None)
    if multimodal is None:
        return (mask.cumsum(-1) - 1).clamp(min=0)
    accepted = inspect.signature(multimodal.get_rope_index).parameters
    positions: Tensor = multimodal.get_rope_index(**{k: v for k, v in inputs.items() if k in accepted})[0]
    return positions


def _next_position(positions: Tensor) -> Tensor:
    # M-RoPE continues after the largest of its three coordinates, the same in all three.
    if positions.ndim == 3:
        return (positions.amax(dim=(0, 2)) + 1).expand(len(positions), -1)[..., None]
    return positions.amax(-1, keepdim=True) + 1


def _can_continue(model: PreTrainedModel, answers: Sequence[Sequence[int]]) -> bool:
    """Whether continuing from a kept state by several tokens equals reading everything at once."""
    if model not in _continues:
        try:
            words = [token for answer in answers for token in answer]
            _continues[model] = _continuation_is_exact(model, words)
        except (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError):
            # What a model raises here is its own affair; that it raises is the answer.
            _continues[model] = False
        if not _continues[model]:
            notice("This model cannot continue from a kept state: each label takes a whole pass (slower).")
    return _continues[model]


def _continuation_is_exact(model: PreTrainedModel, words: Sequence[int]) -> bool:
    import torch

    row = [words[index % len(words)] for index in range(8)]
    tokens = torch.tensor([row, row[::-1]], device=model.device)
    mask, order = torch.ones_like(tokens), torch.tensor([1, 0], device=model.device)
    positions = mask.cumsum(-1) - 1
    whole = model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, 5:]
    state = model(
        input_ids=tokens[:, :5], attention_mask=mask[:, :5], position_ids=positions[:, :5], use_cache=True
    ).past_key_values
    state.reorder_cache(order)
    continued = model(
        input_ids=tokens[order, 5:],
        attention_mask=mask,
        position_ids=positions[:, 5:],
        past_key_values=state,
        use_cache=True,
    ).logits[order]
    # A lost state changes the logits beyond recognition; half precision only blurs them.
    bound = 1e-3 if whole.dtype == torch.float32 else 0.1
    return bool((continued - whole).float().norm() <= bound * whole.float().norm())
