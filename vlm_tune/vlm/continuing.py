"""Scores of all answers by any model that transformers has: the prompt is read once, and answers continue from there.

A label that another one begins with is read off on the other's way. Models whose kept state cannot be continued by
several tokens at once are found out by trying it on a few tokens, and take the long way: a pass for each answer.
"""

from __future__ import annotations

import copy
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlm_tune._console import notice
from vlm_tune.vlm.pixels import prepare, to_model
from vlm_tune.vlm.positions import token_positions

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["Continuing", "full_forward"]

_PATHS_PER_PASS = 8
"""The kept state is copied once per path in a pass: this bounds memory, and shrinks with the batch."""

_continues: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


class Continuing:
    """Scores by transformers' own forward pass.

    Args:
        model: The model, bare or wrapped by PEFT.
        processor: The model's own processor.
        prompt: The rendered prompt.
        answers: The tokens of each answer, the end of turn included.
    """

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, prompt: str, answers: Sequence[Sequence[int]]
    ) -> None:
        self._model, self._processor, self._prompt, self._answers = model, processor, prompt, answers

    def read(self, photo: Image) -> Image:
        """Return a photo as `prepare` takes it."""
        return photo

    def prepare(self, photos: Sequence[Image | Tensor]) -> dict[str, Tensor]:
        """Return the model's inputs for a batch of photos.

        Raises:
            ValueError: The processor refuses a photo.
        """
        return prepare(self._processor, photos, [self._prompt] * len(photos), device=self._model.device)

    def num_tokens(self, inputs: dict[str, Tensor]) -> int:
        """Return how many tokens a batch's prompts are."""
        return inputs["input_ids"].numel()

    def answer(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the log-probability of every answer for every photo, in float32, of shape (photos, answers)."""
        import torch

        model, answers = self._model, self._answers
        inputs = to_model(inputs, model)
        if not _can_continue(model, answers):
            return torch.stack([full_forward(model, inputs, answer) for answer in answers], dim=1)
        positions = token_positions(model, inputs)
        read = model(**inputs, position_ids=positions, use_cache=True, logits_to_keep=1)
        scores = torch.empty(len(inputs["input_ids"]), len(answers), device=inputs["input_ids"].device)
        for paths, places in _passes(answers):
            chosen = [answers[place] for place in places]
            scores[:, places] = _continue(
                model, read, paths, chosen, prompt_mask=inputs["attention_mask"], start=_next_position(positions)
            )
        return scores


def _passes(answers: Sequence[Sequence[int]]) -> Iterator[tuple[list[tuple[int, ...]], list[int]]]:
    """Yield a few paths at a time, and the places of the answers that end on them.

    A path is an answer without its last token that no other one begins with: what `crack` needs is computed on
    the way to `crack, dent`.
    """
    ways = sorted({tuple(answer[:-1]) for answer in answers})
    paths = [way for way, after in zip(ways, [*ways[1:], ()], strict=True) if after[: len(way)] != way]
    ending: dict[tuple[int, ...], list[int]] = {path: [] for path in paths}
    for place, answer in enumerate(answers):
        # In sorted order, the first path not before a way is the one that begins with it.
        ending[paths[bisect_left(paths, tuple(answer[:-1]))]].append(place)
    by_length = sorted(paths, key=len)
    for start in range(0, len(paths), _PATHS_PER_PASS):
        chunk = by_length[start : start + _PATHS_PER_PASS]
        yield chunk, list(itertools.chain.from_iterable(ending[path] for path in chunk))


def _continue(
    model: PreTrainedModel,
    read: Any,
    paths: Sequence[tuple[int, ...]],
    answers: Sequence[Sequence[int]],
    *,
    prompt_mask: Tensor,
    start: Tensor,
) -> Tensor:
    """Score answers along some paths from the state left by the prompt; returns (rows, len(answers))."""
    import torch

    rows, device = len(prompt_mask), prompt_mask.device
    width = max(map(len, paths))
    # Filled up on the right: a causal model never looks there, so nothing needs masking.
    tokens = torch.tensor([[*path, *[path[-1]] * (width - len(path))] for path in paths], device=device)
    first: Tensor = read.logits[:, -1].float().log_softmax(-1)[:, tokens[:, 0]]

    each_row = torch.arange(rows, device=device).repeat_interleave(len(paths))
    state = copy.deepcopy(read.past_key_values)
    state.reorder_cache(each_row)
    fed = tokens.repeat(rows, 1)
    logits = model(
        input_ids=fed,
        attention_mask=torch.cat([prompt_mask[each_row], torch.ones_like(fed)], dim=1),
        position_ids=start[..., each_row, :] + torch.arange(width, device=device),
        past_key_values=state,
        use_cache=True,
    ).logits
    # After the token that follows in the path, the columns are the tokens that end an answer here.
    ends = sorted({answer[-1] for answer in answers})
    following = torch.cat([fed[:, 1:], fed[:, :1]], dim=1)[..., None]
    wanted = torch.cat([following, torch.tensor(ends, device=device).expand(*fed.shape, -1)], dim=-1)
    found = _log_probability(logits, wanted).view(rows, len(paths), width, -1)
    so_far = torch.cat([first[..., None], found[..., :-1, 0]], dim=-1).cumsum(-1)

    on = [next(place for place, path in enumerate(paths) if path[: len(a) - 1] == tuple(a[:-1])) for a in answers]
    at = [len(answer) - 2 for answer in answers]
    last = [1 + ends.index(answer[-1]) for answer in answers]
    return so_far[:, on, at] + found[:, on, at, last]


def full_forward(model: PreTrainedModel, inputs: dict[str, Tensor], answer: Sequence[int]) -> Tensor:
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
    return _log_probability(logits, tokens[..., None])[..., 0].sum(-1)


def _log_probability(logits: Tensor, tokens: Tensor) -> Tensor:
    # In float32 whatever the model's type: differences between labels are small against the logits' rounding.
    return logits.float().log_softmax(-1).gather(-1, tokens)


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
    # A lost state changes the logits beyond recognition. Half precision only blurs them, and so does LLM.int8, which
    # chooses what to leave in 16 bits over a whole batch.
    exact = whole.dtype == torch.float32 and not getattr(model, "is_loaded_in_8bit", False)
    bound = 1e-3 if exact else 0.1
    return bool((continued - whole).float().norm() <= bound * whole.float().norm())
