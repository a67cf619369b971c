"""Scores of all answers in a single pass: the answers stand behind the prompt as a tree, see `tree.py`.

Photos are read in threads, cut into patches beside the model's own work on the GPU, and tokens are packed without
padding by this library's own forward pass (`fused`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlm_tune._console import notice
from vlm_tune.images import decode
from vlm_tune.vlm.beside import Beside
from vlm_tune.vlm.pixels import image_tensors, to_model, to_tensor
from vlm_tune.vlm.placing import Placed, Placing
from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

    from vlm_tune.vlm.continuing import Continuing
    from vlm_tune.vlm.fused import Fused
    from vlm_tune.vlm.fused.packing import Packed, Runs

__all__ = ["OnePass", "one_pass"]

_LOGITS_AT_ONCE = 2**27
"""Logits made at once: half a gigabyte in float32."""

_agree: WeakKeyDictionary[Any, dict[frozenset[str], bool]] = WeakKeyDictionary()
"""Of each model, with which layers adapted the fused forward pass says what the stock one says."""


def one_pass(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: str,
    answers: Sequence[Sequence[int]],
    *,
    stock: Continuing,
) -> OnePass | None:
    """Return what scores in one pass; None for architectures and adapters that this cannot be done for."""
    from vlm_tune.vlm.fused import adapted_layers, fused
    from vlm_tune.vlm.fused.recompute import Recompute

    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    adapted = adapted_layers(bare)
    known = _agree.setdefault(bare, {})
    if adapted is None or known.get(adapted) is False:
        return None
    forward = fused(bare, Recompute())
    if forward is None:
        return None
    return OnePass(bare, processor, prompt, AnswerTree.of(answers), forward, stock=stock, agrees=known, key=adapted)


@dataclass(frozen=True)
class _Prepared:
    """A batch on the model's device.

    Attributes:
        pixels: The photos' tensors, in the order of the packed sequences.
        packed: Prompts and trees.
        order: Which photo each sequence is about.
        back: Which sequence is about each photo, on the model's device.
        photos: What it was made of.
    """

    pixels: dict[str, Tensor]
    packed: Packed
    order: list[int]
    back: Tensor
    photos: Sequence[Tensor]


class OnePass:
    """Scores by this library's own forward pass; compared with the stock one on the first photo.

    Args:
        model: The bare model; adapters may be in it.
        processor: Its processor.
        prompt: The rendered prompt.
        tree: The answers.
        forward: The model's fused forward pass.
        stock: What scores where the two differ.
        agrees: Of this model, which adapted layers were compared before, and with what result.
        key: The layers that are adapted now.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: ProcessorMixin,
        prompt: str,
        tree: AnswerTree,
        forward: Fused,
        *,
        stock: Continuing,
        agrees: dict[frozenset[str], bool],
        key: frozenset[str],
    ) -> None:
        from vlm_tune.vlm.fused.branches import Branches

        self._model, self._processor, self._prompt, self._forward = model, processor, prompt, forward
        self._stock, self._agrees, self._key = stock, agrees, key
        self._steps = _Steps(tree, vocabulary=model.config.get_text_config().vocab_size, device=model.device)
        self._branches = Branches(tree.parents, model.device)
        self._tree = tree
        self._beside = Beside(model.device)
        self._placing = Placing(model, processor, prompt)

    def read(self, data: bytes) -> Tensor:
        """Return a photo as `prepare` takes it, as bytes of shape (3, height, width)."""
        photo = to_tensor(decode(data))
        return photo.pin_memory() if self._model.device.type == "cuda" else photo

    def prepare(self, photos: Sequence[Tensor]) -> _Prepared:
        """Return the model's inputs for a batch of photos.

        Raises:
            ValueError: The processor refuses a photo.
        """
        import torch

        from vlm_tune.vlm.fused.packing import make_runs

        with self._beside.work():
            sizes = [(photo.shape[1], photo.shape[2]) for photo in photos]
            self._placing.learn(sizes)
            rows = [self._placing[size].followed_by(self._tree.tokens, self._tree.depths[1:]) for size in sizes]
            # Nothing may stand between a prompt and its tree, so only equal lengths share a run.
            order, runs = make_runs([len(one.tokens) for one in rows], filled=0.0)
            made = image_tensors(self._processor, [photos[place] for place in order], device=self._model.device)
            pixels = {
                name: value.to(self._model.dtype) if value.is_floating_point() else value
                for name, value in made.items()
            }
            packed = self._pack([rows[place] for place in order], runs)
            # Here, beside the model's work: a tensor made in its midst would wait for the end of it.
            back = torch.tensor(order).argsort().to(self._model.device)
        made_here = (packed.tokens, packed.positions, packed.image_slots, packed.answer_slots, back)
        self._beside.hand_over([*pixels.values(), *made_here])
        return _Prepared(pixels=pixels, packed=packed, order=order, back=back, photos=photos)

    def num_tokens(self, prepared: _Prepared) -> int:
        """Return how many tokens a batch is, trees included."""
        return len(prepared.packed.tokens)

    def answer(self, prepared: _Prepared) -> Tensor:
        """Return the log-probability of every answer for every photo, in float32, of shape (photos, answers)."""
        import torch

        from vlm_tune.vlm.fused.packing import fused_on

        if self._key not in self._agrees:
            self._agrees[self._key] = self._compare(prepared.photos[0])
        if not self._agrees[self._key]:
            return self._stock.answer(self._stock.prepare(prepared.photos))
        with torch.autocast(self._model.device.type, enabled=False), fused_on(self._model.device):
            states = self._forward.answer_states(prepared.packed, self._forward.see(prepared.pixels))
            return self._steps.scores(states, self._forward)[prepared.back]

    def _pack(self, rows: Sequence[Placed], runs: Runs) -> Packed:
        import torch

        from vlm_tune.vlm.fused.packing import Packed, starts

        places = [start + one.image_places for start, one in zip(starts(runs), rows, strict=True)]
        device, size = self._model.device, 1 + len(self._tree.tokens)
        return Packed(
            tokens=torch.cat([one.tokens for one in rows]).to(device),
            positions=torch.cat([one.positions for one in rows], dim=-1).to(device),
            image_slots=torch.cat(places).to(device),
            answer_slots=torch.arange(size * len(rows), device=device),
            runs=runs,
            tail=size,
            branches=self._branches,
        )

    def _compare(self, photo: Tensor) -> bool:
        """Return whether the logits behind the prompt are the stock ones, but for rounding."""
        import torch

        from vlm_tune.vlm.fused import AGREE
        from vlm_tune.vlm.fused.packing import fused_on

        prepared = self.prepare([photo])
        with torch.autocast(self._model.device.type, enabled=False), fused_on(self._model.device):
            states = self._forward.answer_states(prepared.packed, self._forward.see(prepared.pixels))
            mine = self._forward.logits(states[:1])[0].float()
        inputs = to_model(self._stock.prepare([photo]), self._model)
        theirs = self._model(**inputs, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        difference = float((mine - theirs).norm() / theirs.norm())
        if difference <= AGREE[str(self._model.dtype).removeprefix("torch.")]:
            return True
        notice(
            f"The fast forward pass differs from the stock one by {100 * difference:.2g} % on this model; using the "
            "stock one (slower). Please report it with the output of vlm_tune.show_versions()."
        )
        return False


class _Steps:
    """Turns the states of a batch's trees into the answers' scores."""

    def __init__(self, tree: AnswerTree, *, vocabulary: int, device: torch.device) -> None:
        import torch

        self._rows_at_once = max(1, _LOGITS_AT_ONCE // vocabulary)
        # By node, so that the steps of some rows stand together.
        order = sorted(range(len(tree.steps)), key=tree.steps.__getitem__)
        place = {step: at for at, step in enumerate(order)}
        self._nodes = [tree.steps[step][0] for step in order]
        self._tokens = torch.tensor([tree.steps[step][1] for step in order], device=device)
        self._rows = torch.tensor(self._nodes, device=device)
        longest = max(map(len, tree.paths))
        # What is missing in a short path is a step behind the last one, which costs nothing.
        paths = [[*(place[step] for step in path), *[len(order)] * (longest - len(path))] for path in tree.paths]
        self._paths = torch.tensor(paths, device=device)
        self._size = len(tree.parents)

    def scores(self, states: Tensor, forward: Fused) -> Tensor:
        """Return the answers' log-probabilities, of shape (photos, answers).

        Args:
            states: Of shape (photos * nodes, hidden size).
            forward: Makes logits of them.
        """
        import torch
        from torch.nn import functional

        photos, asked = len(states) // self._size, len(self._nodes)
        starts = torch.arange(photos, device=states.device)[:, None]
        rows, tokens = (starts * self._size + self._rows).flatten(), self._tokens.repeat(photos)
        found = torch.empty(photos * asked, device=states.device)
        for begin in range(0, len(states), self._rows_at_once):
            end = min(len(states), begin + self._rows_at_once)
            logits = forward.logits(states[begin:end]).float()
            here = slice(self._asked_before(begin), self._asked_before(end))
            at = rows[here] - begin
            found[here] = logits[at, tokens[here]] - logits.logsumexp(-1)[at]
        steps = functional.pad(found.view(photos, asked), (0, 1))
        return steps[:, self._paths].sum(-1)

    def _asked_before(self, row: int) -> int:
        photo, node = divmod(row, self._size)
        return photo * len(self._nodes) + bisect_left(self._nodes, node)
