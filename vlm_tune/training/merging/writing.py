"""The first half of a merge: every file is copied and hashed in one pass, with new weights in place of the old ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune._console import Bar
from vlm_tune.errors import MergeError
from vlm_tune.training.merging.crew import Crew
from vlm_tune.training.merging.stored import Checkpoint, Piece, StoredTensor
from vlm_tune.training.merging.updates import Update

if TYPE_CHECKING:
    import torch

__all__ = ["hashed", "write"]

_CHUNK = 8 * 2**20


def write(
    checkpoint: Checkpoint, changes: Mapping[str, Update], folder: Path, *, crew: Crew, bar: Bar
) -> dict[Piece, str]:
    """Write the merged model into an empty folder; each byte of the base is read once.

    Args:
        checkpoint: The base's files.
        changes: The updates, by the name on disk of the tensor they change.
        folder: Where to write.
        crew: Who does it.
        bar: Moved on by every tensor and file.

    Returns:
        The SHA-256 of all that is copied, taken of the bytes as they came from the base.

    Raises:
        MergeError: A new weight is not a finite number.
        OSError: The disk is full or fails.
    """
    for file, size in checkpoint.sizes.items():
        (folder / file).parent.mkdir(exist_ok=True)
        with (folder / file).open("wb") as target:
            target.truncate(size)
    copies = {
        crew.movers.submit(hashed, checkpoint.folder, piece, into=folder): piece
        for piece in checkpoint.untouched(frozenset(changes))
    }
    sums = [
        crew.summers.submit(_change, checkpoint.tensors[name], update, folder, crew.device)
        for name, update in changes.items()
    ]
    waited: list[Future[str] | Future[None]] = [*copies, *sums]
    for done in as_completed(waited):
        done.result()
        bar.advance()
    return {piece: copy.result() for copy, piece in copies.items()}


def hashed(folder: Path, piece: Piece, *, into: Path | None = None) -> str:
    """Return the SHA-256 of a piece, and copy it to the same place in another folder on the way, if asked.

    Raises:
        MergeError: The file ends before the piece does.
    """
    digest, left = hashlib.sha256(), piece.end - piece.begin
    buffer = memoryview(bytearray(min(_CHUNK, left)))
    with ExitStack() as files:
        source = files.enter_context((folder / piece.file).open("rb"))
        target = None if into is None else files.enter_context((into / piece.file).open("r+b"))
        source.seek(piece.begin)
        if target is not None:
            target.seek(piece.begin)
        while left:
            part = buffer[: min(left, _CHUNK)]
            if source.readinto(part) != len(part):
                raise MergeError(f"{folder / piece.file} ends within {piece.name}; the disk may be faulty, merge again")
            digest.update(part)
            if target is not None:
                target.write(part)
            left -= len(part)
    return digest.hexdigest()


def _change(tensor: StoredTensor, update: Update, folder: Path, device: str) -> None:
    new_rows = update.on(device)
    with (folder / tensor.file.name).open("r+b") as file:
        file.seek(tensor.begin)
        for rows in tensor.blocks():
            base = tensor.read(rows).to(device)
            new = new_rows(base.double(), rows).to(base.dtype)
            if not bool(new.isfinite().all()):
                raise MergeError(
                    f"{tensor.name} would get values that {tensor.dtype} does not have; "
                    "lower the learning rate, or save the base model in a type with a larger range"
                )
            file.write(_bytes(new))


def _bytes(values: torch.Tensor) -> memoryview:
    import torch

    return values.cpu().contiguous().view(torch.uint8).numpy().data
