"""Scores on their way from the GPU, behind their own batch and not behind the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vlm_tune.vlm.likely import Unfinished

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Leaving"]


class Leaving:
    """Scores on their way to the processor.

    Asked for only when they are wanted, they would stand in line behind the next batch, and the GPU would have nothing
    to do while the one after that is made ready.

    Args:
        found: The scores, or what must be looked at before there are any.

    Attributes:
        lost: Whether memory ran out on the way to the scores, so that there are none.
    """

    _rest: Callable[[Tensor], Tensor | Unfinished] | None

    def __init__(self, found: Tensor | Unfinished) -> None:
        self.lost = False
        self._let_go(found)

    @property
    def finished(self) -> bool:
        """Whether these are the scores."""
        return self._rest is None

    def go_on(self) -> None:
        """Look at what has arrived, and begin what comes next, if anything does."""
        if self._rest is not None:
            # Held here only: where memory runs out, nothing of it is kept.
            rest, self._rest, self.lost = self._rest, None, True
            self._let_go(rest(self.arrived()))
            self.lost = False

    def arrived(self) -> Tensor:
        """Wait for what is on its way."""
        if self._there is not None:
            self._there.synchronize()
        return self._values

    def _let_go(self, found: Tensor | Unfinished) -> None:
        import torch

        self._rest = found.rest if isinstance(found, Unfinished) else None
        self._values = values = found.seen if isinstance(found, Unfinished) else found
        self._there: Any = None
        if values.is_cuda:
            with torch.cuda.device(values.device):
                self._values = values.to("cpu", non_blocking=True)
                self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
                self._there.record()
