"""Scores of all answers in a single pass: the answers stand behind the prompt as a tree, see `tree.py`.

Photos are read in threads, cut into patches beside the model's own work on the GPU, and tokens are packed without
padding by this library's own forward pass (`fused`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vlm_tune._console import notice
from vlm_tune.vlm.beside import Beside
from vlm_tune.vlm.pixels import image_tensors, to_model, to_tensor
from vlm_tune.vlm.placing import Placed, placing
from vlm_tune.vlm.steps import Steps
from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

    from vlm_tune.vlm.continuing import Continuing
    from vlm_tune.vlm.fused import Fused
    from vlm_tune.vlm.fused.behind import Kept
    from vlm_tune.vlm.fused.packing import Packed, Runs

__all__ = ["OnePass", "Prepared", "one_pass"]

_agree: WeakKeyDictionary[Any, dict[frozenset[str], bool]] = WeakKeyDictionary()
"""Of each model, with which layers adapted the fused forward pass says what the stock one says."""


def one_pass(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: str,
    tree: AnswerTree,
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
    return OnePass(bare, processor, prompt, tree, forward, stock=stock, agrees=known, key=adapted)


@dataclass(frozen=True)
class Prepared:
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

    Attributes:
        forward: The model's fused forward pass.
        device: Where the model is.
        vocabulary: How many logits it makes.
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

        self._model, self._processor, self.forward, self.device = model, processor, forward, model.device
        self.vocabulary: int = model.config.get_text_config().vocab_size
        self._stock, self._agrees, self._key = stock, agrees, key
        self._steps = Steps(tree, vocabulary=self.vocabulary, device=model.device)
        self._branches = Branches(tree.parents, model.device)
        self._tree = tree
        self._beside = Beside(model.device)
        self._placing = placing(model, processor, prompt)

    def read(self, photo: Image) -> Tensor:
        """Return a photo as `prepare` takes it, as bytes of shape (3, height, width)."""
        return to_tensor(photo, pinned=self.device.type == "cuda")

    def prepare(self, photos: Sequence[Tensor]) -> Prepared:
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
            made = image_tensors(self._processor, [photos[place] for place in order], device=self.device)
            pixels = {
                name: value.to(self._model.dtype) if value.is_floating_point() else value
                for name, value in made.items()
            }
            packed = self._pack([rows[place] for place in order], runs)
            # Here, beside the model's work: a tensor made in its midst would wait for the end of it.
            back = torch.tensor(order).argsort().to(self.device)
        made_here = (packed.tokens, packed.positions, packed.image_slots, packed.answer_slots, back)
        self._beside.hand_over([*pixels.values(), *made_here])
        return Prepared(pixels=pixels, packed=packed, order=order, back=back, photos=photos)

    def num_tokens(self, prepared: Prepared) -> int:
        """Return how many tokens a batch is, trees included."""
        return len(prepared.packed.tokens)

    def answer(self, prepared: Prepared) -> Tensor:
        """Return the log-probability of every answer for every photo, in float32, of shape (photos, answers)."""
        if self.agrees(prepared):
            return self.scores(prepared)
        return self._stock.answer(self._stock.prepare(prepared.photos))

    def agrees(self, prepared: Prepared) -> bool:
        """Return whether the forward pass says what the stock one says; found out once, with the first photo."""
        if self._key not in self._agrees:
            self._agrees[self._key] = self._compare(prepared.photos[0])
        return self._agrees[self._key]

    def scores(self, prepared: Prepared, *, kept: Kept | None = None) -> Tensor:
        """Return what `answer` does, by this forward pass.

        Args:
            prepared: The batch.
            kept: Filled with what tokens that come later need.
        """
        states = self.states(replace(prepared.packed, kept=kept), prepared.pixels)
        return self._steps.scores(states, self.forward)[prepared.back]

    def states(self, packed: Packed, pixels: dict[str, Tensor] | None = None) -> Tensor:
        """Return what the head makes logits of; see `Fused.answer_states`."""
        import torch

        from vlm_tune.vlm.fused.packing import fused_on

        with torch.autocast(self.device.type, enabled=False), fused_on(self.device):
            return self.forward.answer_states(packed, self.forward.see(pixels) if pixels else ())

    def _pack(self, rows: Sequence[Placed], runs: Runs) -> Packed:
        import torch

        from vlm_tune.vlm.fused.packing import Packed, starts

        places = [start + one.image_places for start, one in zip(starts(runs), rows, strict=True)]
        device, size = self.device, 1 + len(self._tree.tokens)
        return Packed(
            tokens=torch.cat([one.tokens for one in rows]).to(device),
            positions=torch.cat([one.positions for one in rows], dim=-1).to(device),
            image_slots=torch.cat(places).to(device),
            answer_slots=torch.arange(size * len(rows), device=device),
            runs=runs,
            tail=size,
            branches=self._branches if self._tree.tokens else None,
        )

    def _compare(self, photo: Tensor) -> bool:
        """Return whether the logits behind the prompt are the stock ones, but for rounding."""
        from vlm_tune.vlm.fused import AGREE

        prepared = self.prepare([photo])
        states = self.states(prepared.packed, prepared.pixels)
        mine = self.forward.logits(states[:1])[0].float()
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
