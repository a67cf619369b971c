"""Sequences of different lengths as one row of tokens, and attention that stays within each.

Sequences of nearly the same length are filled up to the longest of them and form a run, for which attention is
one batched product; a causal model never looks at the filling. Other lengths form other runs, so that little is
computed for nothing and no kernel for variable lengths is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from torch import Tensor

    from vlm_tune.vlm.fused.behind import Behind, Kept
    from vlm_tune.vlm.fused.branches import Branches

__all__ = ["Packed", "Runs", "attend", "attend_from_tails", "attend_to", "fused_on", "make_runs", "starts", "tails"]

Runs = tuple[tuple[int, int], ...]
"""For each run: how many sequences it has, and how many tokens each of them takes."""

_FILLED = 0.03
"""Largest share of a sequence's place in a run that may be filling, where nothing else is asked for."""

_AT_ONCE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels that start with any shape; where the first does not apply, the next one does."""

_FASTEST = [SDPBackend.CUDNN_ATTENTION, *_AT_ONCE]
"""cuDNN's was the fastest for both towers on an H200, but it makes a plan for each shape, for some 100 ms."""

_WORTH_A_PLAN = 1e14
"""Operations with one shape after which it gets a plan: by then one would have paid for itself. For LFM2-VL's patches
cuDNN did 450 TFLOP/s on an H200 and flash attention 290, so that 8e13 operations save 100 ms. Photos of a hundred
sizes bring as many shapes, and plans for all of them took five times as long as the answers."""

_SHAPES_COUNTED = 10_000

_done: dict[tuple[object, ...], float] = {}
"""Operations done with each shape."""


@dataclass(frozen=True)
class Packed:
    """Several sequences as one row of tokens.

    Attributes:
        tokens: Token ids of shape (tokens,).
        positions: Place of each token for the rotary embedding, of shape (tokens,) or (3, tokens).
        image_slots: Where the images' features go, in the images' order.
        answer_slots: Rows whose logits are wanted, counted in the row of all sequences' tails.
        runs: How the tokens are divided into sequences.
        tail: How many tokens at each sequence's end hold all rows that are wanted.
        branches: The tree that the last tokens of every sequence are; None where they follow one another.
        kept: Filled by the layers with what tokens that come later need; None keeps nothing.
        behind: What the sequences are trees behind; None where they are prompts.
    """

    tokens: Tensor
    positions: Tensor
    image_slots: Tensor
    answer_slots: Tensor
    runs: Runs
    tail: int
    branches: Branches | None = None
    kept: Kept | None = None
    behind: Behind | None = None


@contextmanager
def fused_on(device: torch.device) -> Iterator[None]:
    """Let the block's operations run on a device, with its fastest attention.

    Torch goes by where its tensors are, Triton by the current device, which is the first unless somebody says so.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), sdpa_kernel(_FASTEST, set_priority=True):
        yield


def make_runs(lengths: Sequence[int], *, filled: float = _FILLED) -> tuple[list[int], Runs]:
    """Return an order of the sequences, longest first, and the runs that they form in it.

    Args:
        lengths: How many tokens each sequence has.
        filled: Largest share of a sequence's place in a run that may be filling.

    Examples:
        >>> make_runs([100, 40, 99])
        ([0, 2, 1], ((2, 100), (1, 40)))
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    runs: list[tuple[int, int]] = []
    for index in order:
        if runs and lengths[index] >= (1 - filled) * runs[-1][1]:
            runs[-1] = (runs[-1][0] + 1, runs[-1][1])
        else:
            runs.append((1, lengths[index]))
    return order, tuple(runs)


def starts(runs: Runs) -> Iterator[int]:
    """Yield where each sequence begins in the row."""
    at = 0
    for count, length in runs:
        yield from range(at, at + count * length, length)
        at += count * length


def attend(
    query: Tensor, key: Tensor, value: Tensor, runs: Runs, *, causal: bool, branches: Branches | None = None
) -> Tensor:
    """Return attention within each sequence.

    Args:
        query: Of shape (tokens, heads, width).
        key: Of shape (tokens, key heads, width).
        value: As the key.
        runs: How the tokens are divided.
        causal: Whether a token sees only itself and those before it.
        branches: The tree that the last tokens of every sequence are.

    Returns:
        Tensor of shape (tokens, heads * width).
    """
    parts, at = [], 0
    for count, length in runs:
        here = slice(at, at + count * length)
        q, k, v = (_apart(one[here], count) for one in (query, key, value))
        mixed = _mixed(q, k, v, causal=causal)
        if branches:
            # As if its tokens followed one another, which is put right here: that copies less than leaving them out.
            tree = slice(length - len(branches), length)
            mixed[:, :, tree] = _mixed(q[:, :, tree], k, v, seen=branches.seen(len(branches), length))
        parts.append(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        at = here.stop
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def attend_from_tails(
    query: Tensor, key: Tensor, value: Tensor, runs: Runs, *, tail: int, branches: Branches | None = None
) -> Tensor:
    """Return causal attention of the last tokens of each sequence.

    Args:
        query: Of the asking tokens as `tails` returns them, of shape (asking tokens, heads, width).
        key: Of all tokens, of shape (tokens, key heads, width).
        value: As the key.
        runs: How all tokens are divided.
        tail: How many tokens of each sequence ask, all of them where it is shorter.
        branches: The tree that the last tokens of every sequence are.

    Returns:
        Tensor of shape (asking tokens, heads * width).
    """
    parts, at, asked = [], 0, 0
    for count, length in runs:
        asking = min(tail, length)
        q = _apart(query[asked : asked + count * asking], count)
        k, v = (_apart(one[at : at + count * length], count) for one in (key, value))
        seen = branches.seen(asking, length) if branches else _causal(asking, length, query.device)
        mixed = _mixed(q, k, v, seen=seen)
        parts.append(mixed.transpose(1, 2).flatten(0, 1).flatten(1))
        at, asked = at + count * length, asked + count * asking
    return torch.cat(parts)


def attend_to(query: Tensor, key: Tensor, value: Tensor, *, seen: Tensor) -> Tensor:
    """Return the attention of some tokens to others.

    Args:
        query: Of shape (sequences * asking, heads, width).
        key: Of shape (sequences, length, key heads, width).
        value: As the key.
        seen: Truth values of shape (sequences, 1, asking, length).

    Returns:
        Tensor of shape (sequences * asking, heads * width).
    """
    mixed = _mixed(_apart(query, len(key)), key.transpose(1, 2), value.transpose(1, 2), seen=seen)
    return mixed.transpose(1, 2).flatten(0, 1).flatten(1)


def tails(x: Tensor, runs: Runs, tail: int) -> Tensor:
    """Return the rows of the last tokens of each sequence, all of them where a sequence is shorter."""
    parts, at = [], 0
    for count, length in runs:
        apart = x[at : at + count * length].view(count, length, *x.shape[1:])
        parts.append(apart[:, -min(tail, length) :].flatten(0, 1))
        at += count * length
    return torch.cat(parts)


def _mixed(query: Tensor, key: Tensor, value: Tensor, *, causal: bool = False, seen: Tensor | None = None) -> Tensor:
    shared = query.shape[1] // key.shape[1]
    if seen is None:
        with _kernels(query, key, causal):
            return functional.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=shared > 1)
    # Heads that share their keys stand behind one another: kernels with a mask would make copies of the keys.
    behind = query.reshape(*key.shape[:2], -1, key.shape[3])
    with _kernels(behind, key, None):
        mixed = functional.scaled_dot_product_attention(
            behind, key, value, attn_mask=torch.cat([seen] * shared, dim=-2)
        )
    return mixed.reshape(query.shape)


def _kernels(query: Tensor, key: Tensor, causal: bool | None) -> AbstractContextManager[None]:
    """Return a context with the kernels for a call of this shape."""
    if not query.is_cuda:
        return nullcontext()
    shape = query.shape, key.shape, causal
    if len(_done) > _SHAPES_COUNTED:
        _done.clear()
    _done[shape] = _done.get(shape, 0.0) + 4.0 * math.prod(query.shape) * key.shape[2] / (2 if causal else 1)
    return nullcontext() if _done[shape] > _WORTH_A_PLAN else sdpa_kernel(_AT_ONCE, set_priority=True)


def _causal(asking: int, length: int, device: torch.device) -> Tensor:
    places = torch.arange(length, device=device)
    return places <= places[length - asking :, None]


def _apart(rows: Tensor, count: int) -> Tensor:
    """Return (count * length, heads, width) as (count, heads, length, width)."""
    return rows.view(count, -1, *rows.shape[1:]).transpose(1, 2)
