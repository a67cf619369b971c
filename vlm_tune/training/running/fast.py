"""Training batches through the fused forward pass: photos read once, image features once, tokens packed."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from vlm_tune import _console, _processes, images
from vlm_tune._threads import ahead
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.distributed import hand_round
from vlm_tune.training.running.objective import Answers
from vlm_tune.training.running.steps import Row
from vlm_tune.training.running.stock import Stock
from vlm_tune.training.running.store import Store
from vlm_tune.vlm.beside import Beside
from vlm_tune.vlm.pixels import image_tensors, to_tensor
from vlm_tune.vlm.placing import Placed, Placing
from vlm_tune.vlm.prompts import prompt_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vlm_tune.vlm import Resident
    from vlm_tune.vlm.fused import Fused
    from vlm_tune.vlm.fused.packing import Packed

__all__ = ["Fast"]

_IMAGES_AT_ONCE = 16
"""Photos of one size that are resized, cut up and looked at together."""

_WAITING = 64
"""Decoded photos that may wait for others of their size."""


@dataclass(frozen=True)
class _Sequence(Placed):
    """Prompt and answer of one example; the same for all photos of one size with one label.

    Attributes:
        num_trained: How many tokens at the end are trained.
    """

    num_trained: int


class Fast:
    """The fused forward pass over packed examples.

    What does not change while training is computed once, ahead of it: photos are read and cut into patches, and if
    nothing is trained before the language model, the vision tower looks at them once. It stays on the GPU, or in
    main memory, or is made anew for every batch, whichever is the first that there is room for.

    Args:
        resident: The loaded model.
        batches: The examples.
        fused: The model's forward pass.
        sees_once: Whether nothing before the language model is trained.
        room: Bytes of the GPU's memory that photos may take.
    """

    def __init__(
        self, resident: Resident, batches: Batches, fused: Fused, *, sees_once: bool, room: float = 0.0
    ) -> None:
        self._resident, self._batches, self._fused, self._sees_once = resident, batches, fused, sees_once
        self._store = Store(resident.device, len(batches), room=room)
        self._beside = Beside(resident.device)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._placing = Placing(resident.model, resident.processor, prompt_text(resident.processor, batches.task))
        self._sequences: dict[tuple[tuple[int, int], str], _Sequence] = {}

    def read(self, indices: Sequence[int]) -> None:
        """Read photos ahead of the training, until there is no room left to keep them.

        Several processes read a part each, and keep all of them: the order of an epoch brings any to each.

        Raises:
            ImageError: A photo cannot be read.
        """
        mine = indices[_processes.rank() :: _processes.world_size()]
        with _console.progress("Reading photos", total=len(mine)) as bar:
            for done in self._read(mine):
                bar.advance(done)
                if self._store.full:
                    break
        hand_round(self._store, self._sizes)

    def answers(self, model: Any, rows: Sequence[Row]) -> Answers:
        """Return what the model says at the answers of some examples.

        Args:
            model: The model as the trainer wraps it; its `forward` must be this one's (see `forward`).
            rows: The examples.

        Raises:
            ImageError: A photo cannot be read.
        """
        import torch

        from vlm_tune.vlm.fused.packing import make_runs

        looked_at = self._look_at([row.index for row in rows])
        sequences = [self._sequence(row.index) for row in rows]
        order, runs = make_runs([len(one.tokens) for one in sequences])
        packed, targets, counts = _pack([sequences[place] for place in order], runs)
        weights = torch.tensor([rows[place].weight for place in order]).repeat_interleave(torch.tensor(counts))
        move = partial(_to_device, device=self._resident.device)
        logits = model(packed=_moved(packed, move), seen=[looked_at[place] for place in order]).logits
        return Answers(logits=logits, targets=move(targets), weights=move(weights))

    def forward(self, *, packed: Packed, seen: Sequence[dict[str, Tensor]], **unused: None) -> Any:
        """Stand in for the model's own `forward`, so that wrappers for several GPUs work as they always do."""
        import torch
        from transformers.modeling_outputs import CausalLMOutput

        from vlm_tune.vlm.fused.packing import fused_on

        device = self._resident.device
        with torch.autocast(device.type, enabled=False), fused_on(device):
            if self._sees_once:
                features = tuple(torch.cat([one[name] for one in seen]) for name in seen[0])
            else:
                features = self._fused.see(_joined(seen))
            return CausalLMOutput(logits=self._fused.logits(self._fused.answer_states(packed, features)))

    def difference(self, stock: Stock, model: Any, rows: Sequence[Row]) -> float:
        """Return how far the logits are from the stock ones, over the norm of the latter.

        Args:
            stock: The reference.
            model: The model wrapped by PEFT.
            rows: The examples to compare on.
        """
        import torch

        with torch.no_grad():
            mine = self.answers(model, rows)
            # As the trainer calls it: without, PEFT's adapters would drag everything into float32.
            with torch.autocast(self._resident.device.type, self._resident.dtype, enabled=mine.logits.is_cuda):
                reference = stock.answers(model, rows)
        if not torch.equal(mine.targets, reference.targets):
            return float("inf")
        return float((mine.logits - reference.logits).float().norm() / reference.logits.float().norm())

    def _look_at(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        missing = [index for index in indices if index not in self._store]
        fresh: dict[int, dict[str, Tensor]] = {}
        for _ in self._read(missing, into=fresh):
            pass
        return [fresh[index] if index in fresh else self._store.get(index) for index in indices]

    def _read(self, indices: Sequence[int], *, into: dict[int, dict[str, Tensor]] | None = None) -> Iterator[int]:
        """Read photos in groups of one size, and yield how many were read each time."""
        waiting: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        threads = min(16, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads) as pool:
            for index, photo in ahead(pool, self._decode, indices, depth=2 * threads):
                group = waiting.setdefault(tuple(photo.shape), [])
                group.append((index, photo))
                if len(group) == _IMAGES_AT_ONCE:
                    yield self._finish(waiting.pop(tuple(photo.shape)), into)
                elif sum(map(len, waiting.values())) > _WAITING:
                    yield self._finish(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))), into)
        for group in waiting.values():
            yield self._finish(group, into)

    def _decode(self, index: int) -> tuple[int, Tensor]:
        task = self._batches.task
        encoded = images.encode(self._batches.examples[index].image, max_pixels=task.max_pixels)
        photo = to_tensor(images.decode(encoded.data))
        return index, photo.pin_memory() if self._resident.device.type == "cuda" else photo

    def _finish(self, group: Sequence[tuple[int, Tensor]], into: dict[int, dict[str, Tensor]] | None) -> int:
        import torch

        from vlm_tune.vlm.fused.packing import fused_on

        with torch.no_grad(), fused_on(self._resident.device):
            made = self._cut_up([photo for _, photo in group])
            if self._sees_once:
                made = {f"{place}": value for place, value in enumerate(self._fused.see(made))}
        # Photos of one size take equal parts of everything.
        parts = {name: value.chunk(len(group)) for name, value in made.items()}
        for place, (index, photo) in enumerate(group):
            self._sizes[index] = (photo.shape[2], photo.shape[1])
            one = {name: part[place] for name, part in parts.items()}
            if into is not None:
                into[index] = one
            else:
                self._store.put(index, one)
        return len(group)

    def _cut_up(self, photos: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the image tensors of photos of one size, in the model's type."""
        with self._beside.work():
            made = image_tensors(self._resident.processor, photos, device=self._resident.device)
            made = {name: _as(value, self._resident.dtype) for name, value in made.items()}
        self._beside.hand_over(made.values())
        return made

    def _sequence(self, index: int) -> _Sequence:
        key = self._sizes[index], self._batches.examples[index].label
        if key not in self._sequences:
            (width, height), answer = self._sizes[index], self._batches.answer(key[1])
            whole = self._placing[height, width].followed_by(answer, range(1, len(answer) + 1))
            self._sequences[key] = _Sequence(**vars(whole), num_trained=len(answer))
        return self._sequences[key]


def _pack(sequences: Sequence[_Sequence], runs: Sequence[tuple[int, int]]) -> tuple[Packed, Tensor, list[int]]:
    """Return sequences as one row, the tokens that should come, and how many of them each has."""
    import torch

    from vlm_tune.vlm.fused.packing import Packed, starts

    lengths = [length for count, length in runs for _ in range(count)]
    tokens = torch.cat([_filled(one.tokens, to) for one, to in zip(sequences, lengths, strict=True)])
    positions = torch.cat([_filled(one.positions, to) for one, to in zip(sequences, lengths, strict=True)], dim=-1)
    places = [start + one.image_places for start, one in zip(starts(tuple(runs)), sequences, strict=True)]
    # The logits at a token say which comes next.
    firsts = [len(one.tokens) - one.num_trained - 1 for one in sequences]
    tail = max(length - first for length, first in zip(lengths, firsts, strict=True))
    ends = itertools.accumulate(min(tail, length) for length in lengths)
    asked = [
        torch.arange(one.num_trained) + end - length + first
        for one, first, length, end in zip(sequences, firsts, lengths, ends, strict=True)
    ]
    targets = torch.cat([one.tokens[-one.num_trained :] for one in sequences])
    packed = Packed(
        tokens=tokens,
        positions=positions,
        image_slots=torch.cat(places),
        answer_slots=torch.cat(asked),
        runs=tuple(runs),
        tail=tail,
    )
    return packed, targets, [one.num_trained for one in sequences]


def _filled(values: Tensor, length: int) -> Tensor:
    missing = length - values.shape[-1]
    if not missing:
        return values
    import torch

    return torch.cat([values, values[..., -1:].expand(*values.shape[:-1], missing)], dim=-1)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _moved(packed: Packed, move: Any) -> Packed:
    import dataclasses

    import torch

    moved = {
        field.name: move(value)
        for field in dataclasses.fields(packed)
        if isinstance(value := getattr(packed, field.name), torch.Tensor)
    }
    return dataclasses.replace(packed, **moved)


def _to_device(tensor: Tensor, *, device: Any) -> Tensor:
    # From pinned memory the copy does not wait for what the GPU is doing.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _joined(seen: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    from vlm_tune.training.running.batches import concatenate

    return {name: concatenate([one[name] for one in seen]) for name in seen[0]}
