"""The training loop: next-token loss on the answers, AdamW, a cosine over the wall clock or over a number of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from demo_model.fast import Fast, Seen
from demo_model.feed import Batch

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train; the one of `seconds` and `steps` that is reached first ends it."""

    seconds: float = math.inf
    steps: int | None = None
    learning_rate: float = 2e-3
    warmup_steps: int = 300
    weight_decay: float = 0.05

    def progress(self, step: int, elapsed: float) -> float:
        """From 0 at the start to 1 at the end."""
        return max(elapsed / self.seconds, step / self.steps if self.steps else 0.0)

    def rate(self, step: int, elapsed: float) -> float:
        """The learning rate: linear warm-up, then a cosine to zero."""
        warm = min(1.0, (step + 1) / min(self.warmup_steps, self.steps // 5 + 1 if self.steps else self.warmup_steps))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress(step, elapsed))))


def train(
    model: Qwen3VLForConditionalGeneration, prefix: list[int], batches: Iterator[Batch], schedule: Schedule
) -> int:
    """Trains what requires a gradient, on a GPU in bfloat16 autocast with float32 weights; returns the steps taken."""
    device = model.device
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    rest = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=device.type == "cuda")
    start_tokens = torch.tensor(prefix, device=device)
    # cuDNN's attention plans anew for every length of text, which takes longer than the attention.
    torch.backends.cuda.enable_cudnn_sdp(False)
    fast = Fast(model, compiled=device.type == "cuda")
    began, step, waited, shown = time.monotonic(), 0, 0.0, 0.0
    model.train()
    while schedule.progress(step, elapsed := time.monotonic() - began) < 1:
        before = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - before
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step, elapsed)
        loss = _backward(fast, start_tokens, batch)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        if elapsed - shown > 10 or step in (1, 20):
            shown = elapsed
            rate = step * len(batch.pixels) / max(elapsed, 1e-9)
            print(
                f"step {step:6d}  {elapsed:6.1f} s  loss {loss.item():.4f}  {rate:7.0f} pictures/s  "
                f"waiting {waited / max(elapsed, 1e-9):.0%}",
                flush=True,
            )
    model.eval()
    return step


def _backward(fast: Fast, prefix: Tensor, batch: Batch) -> Tensor:
    """Adds the gradients of one batch; the pictures are encoded once for all their questions."""
    device = prefix.device
    precision = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    with precision:
        seen = fast.see(torch.from_numpy(batch.pixels).to(device))
        total = torch.zeros((), device=device)
        rows = len(batch.ids)
        # Sorted by length: each part is padded to its own longest row only.
        edges = [0, rows * 3 // 4, rows]
        for first, last in pairwise(edges):
            # The longest prompts define their words and list them again: learned as text, they teach to look back.
            prompt_weight = 0.01 if first else 0.0
            total = total + _loss(fast, prefix, seen, batch, slice(first, last), prompt_weight=prompt_weight)
    loss = total / rows
    loss.backward()
    return loss.detach()


def _loss(fast: Fast, prefix: Tensor, seen: Seen, batch: Batch, part: slice, *, prompt_weight: float) -> Tensor:
    """Summed loss of some rows; a row's tokens share a weight that grows with the root of their number."""
    device = prefix.device
    longest = int(batch.length[part].max())
    ids = torch.from_numpy(batch.ids[part, :longest]).to(device).long()
    start = torch.from_numpy(batch.start[part]).to(device)[:, None]
    end = torch.from_numpy(batch.length[part]).to(device)[:, None]
    index = torch.from_numpy(batch.picture[part]).to(device).long()
    hidden = fast.think(prefix, seen.take(index), ids)
    place = torch.arange(1, longest, device=device)
    weight = torch.where(place >= start, (end - start).float().rsqrt(), prompt_weight) * (place < end)
    row, column = weight.nonzero(as_tuple=True)
    logits = fast.logits(hidden[row, column])
    loss = F.cross_entropy(logits, ids[row, column + 1], reduction="none")
    return (loss * weight[row, column]).sum()
