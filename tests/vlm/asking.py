"""One batch through a scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm_tune.images import decode
from vlm_tune.vlm.scoring import Scorer


def answered(way: Scorer, photos: Sequence[bytes]) -> torch.Tensor:
    """Return the scores of some encoded photos, in one batch."""
    with torch.no_grad():
        return way.answer(way.prepare([way.read(decode(photo)) for photo in photos]))
