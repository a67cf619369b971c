"""Training batches through the fused forward pass: photos read once, image features once, tokens packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from vlm_tune import _console, _processes
from vlm_tune._threads import ahead
from vlm_tune.training.running.ahead import THREADS, Ahead
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.distributed import hand_round
from vlm_tune.training.running.objective import Answers
from vlm_tune.training.running.packs import Sequenced, moved, pack, to_device
from vlm_tune.training.running.steps import Row
from vlm_tune.training.running.stock import Stock
from vlm_tune.training.running.store import Store
from vlm_tune.vlm.beside import Beside
from vlm_tune.vlm.pixels import image_tensors, to_tensor
from vlm_tune.vlm.placing import placing
from vlm_tune.vlm.prompts import prompt_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from vlm_tune.training.running.photos import Photos
    from vlm_tune.vlm import Resident
    from vlm_tune.vlm.fused import Fused
    from vlm_tune.vlm.fused.packing import Packed

__all__ = ["Fast"]

_IMAGES_AT_ONCE = 16
"""Photos of one size that are resized, cut up and looked at together."""

_WAITING = 64
"""Decoded photos that may wait for others of their size."""


class Fast:
    """The fused forward pass over packed examples.

    What does not change while training is computed once, ahead of it: photos are read and cut into patches, and if
    nothing is trained before the language model, the vision tower looks at them once. It stays on the GPU, or in
    main memory, or is made anew for every batch, whichever is the first that there is room for. Photos that are changed
    are read once, and made anew for every batch in threads.

    Args:
        resident: The loaded model.
        batches: The examples.
        fused: The model's forward pass.
        sees_once: Whether nothing before the language model is trained.
        room: Bytes of the GPU's memory that photos may take.
        changed: Whether photos are changed before they are seen.
    """

    def __init__(
        self,
        resident: Resident,
        batches: Batches,
        fused: Fused,
        *,
        sees_once: bool,
        room: float = 0.0,
        changed: bool = False,
    ) -> None:
        self._resident, self._batches, self._fused, self._sees_once = resident, batches, fused, sees_once
        self._changed, self._photos = changed, batches.photos
        what = "features" if sees_once else "patches"
        keys = [(what, self._photos.key(index)) for index in range(len(batches))]
        self._store = Store(resident.device, keys, kept=batches.kept, room=room)
        self._beside = Beside(resident.device)
        self._decode = partial(_decoded, batches.photos, pin=resident.device.type == "cuda")
        self._ahead = Ahead(self._decode)
        self._placing = placing(resident.model, resident.processor, prompt_text(resident.processor, batches.task))
        self._sequences: dict[tuple[tuple[int, int], str], Sequenced] = {}

    def read(self, indices: Sequence[int]) -> None:
        """Read photos ahead of the training, until there is no room left to keep them.

        Several processes read a part each. Of what does not change they keep all: the order of an epoch brings any to
        each.

        Raises:
            ImageError: A photo cannot be read.
        """
        mine = [
            Row(index, 1.0)
            for index in indices[_processes.rank() :: _processes.world_size()]
            if self._changed or index not in self._store
        ]
        with _console.progress("Reading photos", total=len(mine)) as bar, ThreadPoolExecutor(THREADS) as pool:
            if self._changed:
                for _ in ahead(pool, self._photos.get, [row.index for row in mine], depth=2 * THREADS):
                    bar.advance()
                    if self._photos.full:
                        break
                return
            for done in self._grouped(zip(mine, ahead(pool, self._decode, mine, depth=2 * THREADS), strict=True)):
                bar.advance(done)
                if self._store.full:
                    break
        hand_round(self._store, self._photos)

    def coming(self, rows: Sequence[Row]) -> None:
        """Begin with the photos of examples that will be asked for, where they are not there already."""
        self._ahead.coming([row for row in rows if not self._is_kept(row)])

    def close(self) -> None:
        """End what was begun, and leave what the next training can use."""
        self._ahead.close()
        self._store.leave()

    def answers(self, model: Any, rows: Sequence[Row]) -> Answers:
        """Return what the model says at the answers of some examples.

        A mixed photo is seen once, and read twice by the language model: once with each answer behind it.

        Args:
            model: The model as the trainer wraps it; its `forward` must be this one's (see `forward`).
            rows: The examples.

        Raises:
            ImageError: A photo cannot be read.
        """
        import torch

        from vlm_tune.vlm.fused.packing import make_runs

        looked_at = self._look_at(rows)
        asked = [(row, one) for row in rows for one in self._photos.answers(row)]
        sequences = [self._sequence(row.index, one.label) for row, one in asked]
        order, runs = make_runs([len(one.tokens) for one in sequences])
        packed, targets, counts = pack([sequences[place] for place in order], runs)
        weights = torch.tensor([asked[place][1].weight for place in order]).repeat_interleave(torch.tensor(counts))
        seen = list(dict.fromkeys(asked[place][0] for place in order))
        move = partial(to_device, device=self._resident.device)
        logits = model(
            packed=moved(packed, move),
            seen=[looked_at[row] for row in seen],
            places=[seen.index(asked[place][0]) for place in order],
            sizes=[len(sequences[place].image_places) for place in order],
        ).logits
        return Answers(logits=logits, targets=move(targets), weights=move(weights))

    def forward(
        self,
        *,
        packed: Packed,
        seen: Sequence[dict[str, Tensor]],
        places: Sequence[int],
        sizes: Sequence[int],
        **unused: None,
    ) -> Any:
        """Stand in for the model's own `forward`, so that wrappers for several GPUs work as they always do.

        Args:
            packed: The sequences.
            seen: Photos.
            places: Which of them each sequence has.
            sizes: How many tokens it takes there.
            unused: What wrappers add.
        """
        import torch
        from transformers.modeling_outputs import CausalLMOutput

        from vlm_tune.vlm.fused.packing import fused_on

        device = self._resident.device
        with torch.autocast(device.type, enabled=False), fused_on(device):
            if self._sees_once:
                features = tuple(torch.cat([seen[place][name] for place in places]) for name in seen[0])
            else:
                features = tuple(_dealt(one, places, sizes) for one in self._fused.see(_joined(seen)))
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

    def _is_kept(self, row: Row) -> bool:
        return row.view.is_plain and row.index in self._store

    def _look_at(self, rows: Sequence[Row]) -> dict[Row, dict[str, Tensor]]:
        missing = [row for row in dict.fromkeys(rows) if not self._is_kept(row)]
        found: dict[Row, dict[str, Tensor]] = {}
        for _ in self._grouped(((row, self._ahead.take(row)) for row in missing), into=found):
            pass
        return {row: found[row] if row in found else self._store.get(row.index) for row in rows}

    def _grouped(
        self, photos: Iterable[tuple[Row, Tensor]], *, into: dict[Row, dict[str, Tensor]] | None = None
    ) -> Iterator[int]:
        """Cut photos up in groups of one size, and yield how many are done each time."""
        waiting: dict[tuple[int, ...], list[tuple[Row, Tensor]]] = {}
        for row, photo in photos:
            group = waiting.setdefault(tuple(photo.shape), [])
            group.append((row, photo))
            if len(group) == _IMAGES_AT_ONCE:
                yield self._finish(waiting.pop(tuple(photo.shape)), into)
            elif sum(map(len, waiting.values())) > _WAITING:
                yield self._finish(waiting.pop(max(waiting, key=lambda size: len(waiting[size]))), into)
        for group in waiting.values():
            yield self._finish(group, into)

    def _finish(self, group: Sequence[tuple[Row, Tensor]], into: dict[Row, dict[str, Tensor]] | None) -> int:
        import torch

        from vlm_tune.vlm.fused.packing import fused_on

        with torch.no_grad(), fused_on(self._resident.device):
            made = self._cut_up([photo for _, photo in group])
            if self._sees_once:
                made = {f"{place}": value for place, value in enumerate(self._fused.see(made))}
        # Photos of one size take equal parts of everything.
        parts = {name: value.chunk(len(group)) for name, value in made.items()}
        for place, (row, _) in enumerate(group):
            one = {name: part[place] for name, part in parts.items()}
            if into is not None:
                into[row] = one
            else:
                self._store.put(row.index, one)
        return len(group)

    def _cut_up(self, photos: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return the image tensors of photos of one size, in the model's type."""
        with self._beside.work():
            made = image_tensors(self._resident.processor, photos, device=self._resident.device)
            made = {name: _as(value, self._resident.dtype) for name, value in made.items()}
        self._beside.hand_over(made.values())
        return made

    def _sequence(self, index: int, label: str) -> Sequenced:
        key = self._photos.size(index), label
        if key not in self._sequences:
            (width, height), answer = key[0], self._batches.answer(label)
            whole = self._placing[height, width].followed_by(answer, range(1, len(answer) + 1))
            self._sequences[key] = Sequenced(**vars(whole), num_trained=len(answer))
        return self._sequences[key]


def _decoded(photos: Photos, row: Row, *, pin: bool) -> Tensor:
    return to_tensor(photos.shown(row), pinned=pin)


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _dealt(features: Tensor, places: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """Return what was seen of some photos, one after the other, as sequences take it, some of them twice.

    Args:
        features: Of shape (image tokens of all photos, hidden size).
        places: Which photo each sequence has.
        sizes: How many tokens it takes there.
    """
    if list(places) == list(range(len(places))):
        return features
    import torch

    of_photos = dict(zip(places, sizes, strict=True))
    parts = torch.split(features, [of_photos[photo] for photo in range(len(of_photos))])
    return torch.cat([parts[place] for place in places])


def _joined(seen: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    from vlm_tune.training.running.batches import concatenate

    return {name: concatenate([one[name] for one in seen]) for name in seen[0]}
