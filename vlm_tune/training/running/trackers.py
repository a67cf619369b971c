"""Trackers that losses, learning rates and accuracies are sent to: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.errors import TrainingError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["require_trackers", "tracked"]


def require_trackers(names: Sequence[str]) -> None:
    """Make sure that the trackers' packages are installed.

    Raises:
        TrainingError: One is not; the message holds the pip line.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"TrainConfig.report_to names {', '.join(missing)}, not installed here; "
            f"run: pip install {' '.join(missing)}"
        )


@contextmanager
def tracked(trainer: Trainer, names: Sequence[str], logs: Path | None) -> Iterator[None]:
    """Send a trainer's logs to TensorBoard inside the block, if it is one of the trackers; TRL knows the others.

    Args:
        trainer: Is about to train.
        names: The trackers.
        logs: Folder for TensorBoard's files. Left to itself it would take one that is removed with the checkpoints.
    """
    if "tensorboard" not in names or logs is None:
        yield
        return
    from transformers.integrations import TensorBoardCallback

    board = TensorBoardCallback()
    board.logging_dir = str(logs)
    trainer.add_callback(board)
    try:
        yield
    finally:
        if board.tb_writer is not None:
            # Of a training that failed, what it logged until then.
            board.tb_writer.close()
