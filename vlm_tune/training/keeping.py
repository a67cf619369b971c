"""What a training keeps in its folder: the finished adapter with its card, and room for checkpoints until then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlm_tune import _console, _files
from vlm_tune.errors import StorageError
from vlm_tune.training.adapter import CARD_FILE, AdapterCard
from vlm_tune.training.running.failures import storing

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = ["finished", "make_folder", "retell", "save_adapter", "tidy"]


def finished(target: Path, inputs: str) -> AdapterCard | None:
    """Return the card of an adapter that was trained on these very inputs; None if there is none.

    Raises:
        StorageError: The folder holds something else than an adapter.
    """
    if not (target / CARD_FILE).exists():
        return None
    try:
        card = AdapterCard.model_validate(_files.read_json(target / CARD_FILE))
    except ValidationError as error:
        raise StorageError(f"{target} holds something else than an adapter; choose another run_dir") from error
    if card.inputs == inputs:
        return card if (target / "adapter_model.safetensors").exists() else None
    _console.notice(f"{target} was trained on other inputs; it is replaced when this training is finished.")
    return None


def retell(card: AdapterCard, after_epoch: Callable[[float, float], bool]) -> None:
    """Tell of the epochs of a finished training again."""
    steps = card.config.steps_per_epoch(card.training.num_examples)
    for seen in card.training.validation:
        after_epoch(seen.step / steps, seen.accuracy.value)


def make_folder(folder: Path) -> None:
    """Make a folder before the model is read, and not after: it may not be writable.

    Raises:
        StorageError: It cannot be made.
    """
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def tidy(checkpoints: Path, inputs: str) -> None:
    """Remove the checkpoints of a training that is finished."""
    shutil.rmtree(checkpoints / inputs, ignore_errors=True)
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()


def save_adapter(wrapped: PeftModel, card: AdapterCard, target: Path) -> None:
    """Write the adapter and its card.

    Raises:
        StorageError: The disk is full; nothing half-written is left.
    """
    with storing(target), _files.atomic_directory(target) as folder:
        # Embeddings are never trained; looking whether they were would ask a server.
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        _files.write_text(folder / CARD_FILE, card.model_dump_json(indent=2) + "\n")
