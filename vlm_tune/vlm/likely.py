"""Scores of many answers of which few can matter: what follows an unlikely first token is not computed.

The prompt is put through the model once, and its keys and values are kept. What its last token says of all first tokens
bounds every answer from above: none is more probable than what it begins with. So those answers are followed up that
begin as is most likely, until all others together are less than a ten-thousandth as probable. What is said of an answer
that was followed up is then right to that share of its probability once all are normalised; the others get their
bounds, which together have no larger share. Where the answers that were followed up turn out to be too improbable for
that, all of the photo's are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.vlm.beginnings import Beginnings
from vlm_tune.vlm.beside import Beside
from vlm_tune.vlm.one_pass import OnePass, Prepared, one_pass
from vlm_tune.vlm.steps import Steps
from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

    from vlm_tune.vlm.fused.behind import Kept
    from vlm_tune.vlm.fused.packing import Packed

__all__ = ["Likely", "Unfinished", "likely"]

_WORTH_IT = 32
"""Tokens of answers from which on a second pass is quicker than to compute them all in the first."""

_GROUPS = (8, 32)
"""Tokens a photo up to which photos go through the model together, filled up to the most that one of them has."""


@dataclass(frozen=True)
class Unfinished:
    """Something to look at before it is known what else to compute.

    Attributes:
        seen: On the model's device.
        rest: Takes it on the processor, and returns the scores, or the next thing to look at.
    """

    seen: Tensor
    rest: Callable[[Tensor], Tensor | Unfinished]


def likely(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompt: str,
    answers: Sequence[Sequence[int]],
) -> Likely | None:
    """Return what follows up the likely answers only; None where it cannot be done, or would save nothing."""
    tree = AnswerTree.of(answers)
    if len(tree.tokens) < _WORTH_IT:
        return None
    from vlm_tune.vlm.continuing import Continuing

    beginnings = sorted({answer[0] for answer in answers})
    stock = Continuing(model, processor, prompt, answers)
    first = one_pass(model, processor, prompt, AnswerTree.of([(token,) for token in beginnings]), stock=stock)
    return None if first is None else Likely(first, tree, beginnings)


class Likely:
    """Scores in two passes: the prompt and all first tokens, then the other tokens of the likely answers.

    Args:
        first: What scores all first tokens.
        tree: The answers.
        beginnings: The first tokens, in the order in which they are scored.
    """

    def __init__(self, first: OnePass, tree: AnswerTree, beginnings: Sequence[int]) -> None:
        self._first, self.read, self.prepare, self.num_tokens = first, first.read, first.prepare, first.num_tokens
        self._tree = Beginnings(tree, beginnings)
        self._steps = Steps(tree, vocabulary=first.vocabulary, device=first.device)
        self._first_steps = np.searchsorted(self._steps.nodes, np.arange(len(tree.parents) + 1))
        self._beside = Beside(first.device)

    def answer(self, prepared: Prepared) -> Tensor | Unfinished:
        """Return the log-probability of every answer for every photo, of shape (photos, answers), in the end."""
        if not self._first.agrees(prepared):
            return self._first.answer(prepared)
        batch = _Batch(prepared, self._first)
        return Unfinished(batch.firsts, partial(self._follow_up, batch))

    def _follow_up(self, batch: _Batch, firsts: Tensor) -> Unfinished:
        chosen = self._tree.choose(firsts.double().numpy())
        return Unfinished(self._scores(batch, chosen), partial(self._checked, batch, chosen))

    def _checked(self, batch: _Batch, chosen: NDArray[np.bool_], scores: Tensor) -> Tensor:
        """Follow up all answers where those that were are less probable than what they begin with promised."""
        short = self._tree.short(scores.double().numpy(), chosen)
        if short.any():
            rest = self._scores(batch, short[:, None] & np.ones_like(chosen)).cpu()
            scores[short] = rest[short]
        return scores

    def _scores(self, batch: _Batch, chosen: NDArray[np.bool_]) -> Tensor:
        """Return the answers' log-probabilities, and for those that do not begin as chosen a bound."""
        steps = batch.firsts.new_zeros(len(chosen), len(self._steps))
        # Steps stand by node, so that those behind the prompt are the first.
        steps[:, : chosen.shape[1]] = batch.firsts
        counts = chosen @ self._tree.sizes
        for low, high in itertools.pairwise((0, *_GROUPS, len(self._tree.parents))):
            photos = np.flatnonzero((low < counts) & (counts <= high))
            if len(photos):
                self._fill(steps, batch, photos, self._tree.nodes(chosen[photos]))
        return self._steps.total(steps)

    def _fill(self, steps: Tensor, batch: _Batch, photos: NDArray[np.intp], nodes: NDArray[np.intp]) -> None:
        """Put some photos' trees through the model, and write down what it says of their steps."""
        rows = np.flatnonzero(nodes)
        asked = self._first_steps[nodes.flat[rows] + 1] - self._first_steps[nodes.flat[rows]]
        ends = np.cumsum(asked)
        behind = np.repeat(np.arange(len(rows)), asked)
        which = np.arange(ends[-1]) + np.repeat(self._first_steps[nodes.flat[rows]] - ends + asked, asked)
        of = np.repeat(photos[rows // nodes.shape[1]], asked)
        with self._beside.work():
            packed = batch.packed(photos, nodes, rows, self._tree)
            there = [_there(one, steps.device) for one in (behind, np.array(self._steps.tokens)[which], of, which)]
        self._beside.hand_over([*there, *_tensors(packed)])
        states = self._first.states(packed)
        found = self._steps.log_probabilities(
            states,
            self._first.forward,
            rows=there[0],
            tokens=there[1],
            before=lambda row: int(ends[row - 1]) if row else 0,
        )
        steps[there[2], there[3]] = found


class _Batch:
    """A batch whose prompts went through the model.

    Args:
        prepared: The batch.
        first: What puts it through.

    Attributes:
        firsts: What is said of all first tokens, of shape (photos, beginnings).
    """

    def __init__(self, prepared: Prepared, first: OnePass) -> None:
        from vlm_tune.vlm.fused.packing import starts

        kept: Kept = {}
        self.firsts = first.scores(prepared, kept=kept)
        self._kept, self._positions, self._device = kept, prepared.packed.positions, first.device
        runs = prepared.packed.runs
        self._starts = np.fromiter(starts(runs), dtype=np.intp)
        self._lengths = np.repeat([length for _, length in runs], [count for count, _ in runs])
        self._sequences = np.argsort(prepared.order)

    def packed(
        self, photos: NDArray[np.intp], nodes: NDArray[np.intp], wanted: NDArray[np.intp], tree: Beginnings
    ) -> Packed:
        """Return the trees of some photos.

        Args:
            photos: Which photos.
            nodes: The nodes of each, of shape (photos, most); 0 where there are no more.
            wanted: Which of them, counted through all trees, something is asked of.
            tree: What they are nodes of.
        """
        import torch

        from vlm_tune.vlm.fused.behind import Behind
        from vlm_tune.vlm.fused.packing import Packed

        sequences = self._sequences[photos]
        lengths, begins = self._lengths[sequences, None], self._starts[sequences, None]
        places = np.arange(lengths.max())
        count, most = nodes.shape
        there = partial(_there, device=self._device)
        prompt = there(places < lengths)[:, None, None].expand(-1, -1, most, -1)
        ends = self._positions[..., there((begins + lengths - 1)[:, 0])]
        return Packed(
            tokens=there(tree.tokens[nodes].ravel()),
            positions=(ends[..., None] + there(tree.depths[nodes])).flatten(-2),
            image_slots=there(np.empty(0, dtype=np.intp)),
            answer_slots=there(wanted),
            runs=((count, most),),
            tail=most,
            behind=Behind(
                kept=self._kept,
                sequences=there(sequences),
                rows=there(begins + np.minimum(places, lengths - 1)),
                seen=torch.cat([prompt, there(tree.seen(nodes)[:, None])], dim=-1),
                parents=there(tree.parents_in(nodes)),
            ),
        )


def _there(array: NDArray[np.generic], device: torch.device) -> Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def _tensors(packed: Packed) -> list[Tensor]:
    behind = packed.behind
    made = [packed.tokens, packed.positions, packed.image_slots, packed.answer_slots]
    return made if behind is None else [*made, behind.sequences, behind.rows, behind.seen, behind.parents]
