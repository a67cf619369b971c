"""The half of a merge's proof that is about weights: what was written is read back and held to what it should be."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune._console import Bar
from vlm_tune.errors import MergeError
from vlm_tune.training.merging.crew import Crew
from vlm_tune.training.merging.stored import Checkpoint, Piece, StoredTensor
from vlm_tune.training.merging.updates import Update
from vlm_tune.training.merging.writing import hashed

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_ULPS", "Rounding", "WeightsProof", "ulps"]

MAX_ULPS = 0.501
"""Rounding a float64 sum to the nearest 16- or 32-bit number moves it by at most half a unit in the last place; the
thousandth allows for torch's detour over float32 on the way to 16 bits."""

_EXPONENT = 0x7FF0_0000_0000_0000


@dataclass(frozen=True)
class Rounding:
    """What became of one tensor's update, or of all of them."""

    max_ulps: float
    kept: float
    wanted: float
    moved: bool

    @property
    def retained(self) -> float:
        """Share of the update that survives rounding; 1 where there is nothing to lose."""
        return self.kept / self.wanted if self.wanted else 1.0


class WeightsProof:
    """Reads the written model back in the background, while other things are asked of it.

    Args:
        checkpoint: The base's files.
        changes: The updates, by the name on disk of the tensor they change.
        written: What `write` returned.
        folder: Where it wrote.
        crew: Who does it.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        changes: Mapping[str, Update],
        written: Mapping[Piece, str],
        folder: Path,
        *,
        crew: Crew,
    ) -> None:
        self._written = written
        self._hashes: dict[Piece, Future[str]] = {piece: crew.movers.submit(hashed, folder, piece) for piece in written}
        self._roundings: dict[str, Future[Rounding]] = {
            name: crew.summers.submit(_rounding, checkpoint.tensors[name], update, folder, crew.device)
            for name, update in changes.items()
        }

    def result(self, bar: Bar) -> tuple[dict[str, Rounding], str]:
        """Wait for it.

        Returns:
            What became of each update, by the tensor's name on disk; and the SHA-256 over names and SHA-256s of all
            that is as it was.

        Raises:
            MergeError: A byte that should be untouched is not, or a new weight is further than rounding goes from the
                exact one.
        """
        total = hashlib.sha256()
        for piece, found in sorted(self._hashes.items(), key=lambda item: (item[0].file, item[0].begin)):
            if found.result() != self._written[piece]:
                raise MergeError(f"{piece.name} should be untouched and is not; the disk may be faulty, merge again")
            total.update(f"{piece.file} {piece.name} {self._written[piece]}\n".encode())
            bar.advance()
        roundings: dict[str, Rounding] = {}
        for name, future in self._roundings.items():
            roundings[name] = future.result()
            if not roundings[name].max_ulps <= MAX_ULPS:
                raise MergeError(
                    f"{name} has a stored weight {roundings[name].max_ulps:.2f} ulp from the exact sum; "
                    "the disk may be faulty, merge again"
                )
            bar.advance()
        return roundings, total.hexdigest()


def ulps(stored: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest |stored - exact| in units in the last place of the exact number.

    Args:
        stored: What was written, in its own type.
        exact: What it should be, in float64.
    """
    import torch

    info = torch.finfo(stored.dtype)
    # Without sign and fraction, what is left of a float64 is its power of two.
    power = (exact.view(torch.int64) & _EXPONENT).view(torch.float64)
    unit = (power * info.eps).clamp_min_(info.smallest_normal * info.eps)
    # What is no number is as far off as can be; the largest of some numbers and NaN may be a number.
    return float(((stored.double() - exact).abs() / unit).nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def _rounding(tensor: StoredTensor, update: Update, folder: Path, device: str) -> Rounding:
    import torch

    new_rows, target = update.on(device), tensor.within(folder)
    worst, kept, wanted, moved = 0.0, 0.0, 0.0, False
    for rows in tensor.blocks():
        base, stored = tensor.read(rows).to(device).double(), target.read(rows).to(device)
        exact = new_rows(base, rows)
        delta, done = exact - base, stored.double() - base
        worst = max(worst, ulps(stored, exact))
        kept += float(torch.dot(done.flatten(), delta.flatten()))
        wanted += float(torch.dot(delta.flatten(), delta.flatten()))
        moved = moved or bool(done.any())
    return Rounding(worst, kept, wanted, moved)
