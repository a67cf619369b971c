"""The parts that language models share: attention with normalised heads, and the gated feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlm_tune.vlm.fused import ops
from vlm_tune.vlm.fused.lora import Stacked
from vlm_tune.vlm.fused.packing import Runs, attend, attend_from_tails, tails

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vlm_tune.vlm.fused.behind import Behind, Kept
    from vlm_tune.vlm.fused.branches import Branches

__all__ = ["Attention", "FeedForward", "Where"]


@dataclass(frozen=True)
class Where:
    """Where the tokens of a packed batch stand.

    Attributes:
        runs: How the tokens are divided into sequences.
        cos: Cosines of the rotary embedding, of shape (tokens, head width).
        sin: Its sines.
        tail: How many tokens at each sequence's end hold all that is asked for.
        branches: The tree that the last tokens of every sequence are; None where they follow one another.
        kept: Filled by the layers with what tokens that come later need; None keeps nothing.
        behind: What the sequences are trees behind; None where they are prompts.
    """

    runs: Runs
    cos: Tensor
    sin: Tensor
    tail: int
    branches: Branches | None = None
    kept: Kept | None = None
    behind: Behind | None = None


class Attention:
    """Causal attention whose query and key heads are normalised and rotated.

    Args:
        projections: The layers that make query, key, value and the output, in this order.
        norms: The norms' weights for query and key heads.
        head_width: Width of a head.
        eps: Added to the mean square.
    """

    def __init__(
        self, projections: tuple[nn.Module, ...], norms: tuple[Tensor, Tensor], *, head_width: int, eps: float
    ) -> None:
        query, key, value, output = projections
        self._inputs, self._output = Stacked(query, key, value), Stacked(output)
        self._counts = [width // head_width for width in self._inputs.widths]
        self._norms, self._eps = norms, eps

    def __call__(self, x: Tensor, where: Where, *, only_tails: bool = False) -> Tensor:
        """Return the output for all tokens, or for the last ones of each sequence only."""
        query, key, value = ops.heads(
            self._inputs(x), where.cos, where.sin, counts=self._counts, weights=self._norms, eps=self._eps
        )
        if where.kept is not None:
            where.kept[self] = key, value
        if where.behind is not None:
            mixed = where.behind.attend(self, query, key, value)
        elif only_tails:
            query = tails(query, where.runs, where.tail)
            mixed = attend_from_tails(query, key, value, where.runs, tail=where.tail, branches=where.branches)
        else:
            mixed = attend(query, key, value, where.runs, causal=True, branches=where.branches)
        return self._output(mixed)


class FeedForward:
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, gate: nn.Module, up: nn.Module, down: nn.Module) -> None:
        self._inputs, self._output = Stacked(gate, up), Stacked(down)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the output, of the same shape as x."""
        return self._output(ops.swiglu(self._inputs(x)))
