"""A second stream of a GPU: what waits for its own work there does not wait for the model's."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Beside"]


class Beside:
    """A second stream of a GPU; on a processor there is nothing to do.

    Args:
        device: Where the work is.
    """

    def __init__(self, device: torch.device) -> None:
        import torch

        self._stream: Any = None
        if device.type == "cuda":
            # Small pieces of work that come first: they would stand in line behind the model's large ones.
            self._stream = torch.cuda.Stream(device, priority=-1)  # type: ignore[no-untyped-call]

    def work(self) -> AbstractContextManager[Any]:
        """Return a context whose GPU work goes beside that of the current stream."""
        import torch

        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Let the current stream use what was made beside it, when it is ready."""
        import torch

        if self._stream is None:
            return
        current = torch.cuda.current_stream(self._stream.device)
        current.wait_stream(self._stream)
        for tensor in tensors:
            if tensor.is_cuda:
                tensor.record_stream(current)
