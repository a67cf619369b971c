"""The pixel proof: is one photo a copy of the other, and how was it made?

An embedding says that two photos look alike; in a set of photos of one subject all of them do. Here a pair is
laid on top of each other and compared detail by detail, without labels, weights or training:

1. *Align.* SIFT features are matched in both handednesses and a similarity transform is fitted to them, which
   covers crops, scaling, rotation, shifts and mirroring; ECC refines it to a fraction of a pixel. Photos that
   look alike as a whole are laid frame on frame as well, in all eight flips and quarter turns.
2. *Compare.* Over the common area the smooth shading is taken away, and what remains, detail a few pixels
   wide, is correlated block by block. Different photos of one kind of thing share shading and outlines;
   only a copy agrees in nearly every block, however it was brightened or compressed.
3. *Doubt.* Where blocks disagree, a covered edge (caption, border) is left out. If they would agree a few
   pixels further, things have moved against each other: another shot of the scene, and no copy.

Sources: D. Lowe, IJCV 60 (2004), 91-110; M. Fischler and R. Bolles, CACM 24 (1981), 381-395;
G. Evangelidis and E. Psarakis, IEEE TPAMI 30 (2008), 1858-1865.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from vlm_tune.leakage.aligning import Alignment, Photo, alignments, refined
from vlm_tune.leakage.detail import SAME_GRAIN, Agreement, compare, gives_way

__all__ = ["Proof", "Tier", "verify"]

Tier = Literal["identical", "near_copy", "same_scene", "similar_only"]
"""What a pair was proved to be, strongest first; only the first two are leaks."""

WITNESSES = 8
"""So many matched features on one transform are no chance where the blocks agree as well."""
SCENE_INLIERS = 20
"""So many matched features on one transform show the same object, even where the pixels differ."""
MIN_OVERLAP = 0.25
"""A copy covers at least this share of one of the two photos."""
MIN_AGREEMENT = 0.7
"""Share of the blocks with detail that must agree in a copy."""
MIN_BLOCKS = 6
"""Fewer blocks with detail than this prove nothing; then the grain must agree as well."""
RICH_BLOCKS, RICH_SPREAD = 20, 0.1
"""So many blocks that nearly all agree, in detail that is no stripes, need no matched features."""
GIVES_WAY = 0.15
"""Share of the blocks that fit better elsewhere in another shot of the same scene."""
REFINE_FROM = 0.2
"""A first alignment that agrees less than this is not worth refining."""


@dataclass(frozen=True)
class Proof:
    """What the pixels say about a pair.

    Attributes:
        tier: `near_copy`, `same_scene` or `similar_only`.
        evidence: `flipped`, `rotation_deg`, `scale` (size in the second photo over size in the first),
            `transform` (2 x 3, pixels of the first photo, mirrored first where `flipped`, to pixels of the
            second), `inliers` (matched features on it), `overlap` (shares of the first and second photo that
            the other shows, without edges that are covered in one), `ncc` (correlation of the detail),
            `agreement` (share of the blocks with detail that agree), `blocks` (how many those are) and `grain`
            (mean correlation of the other blocks); empty where no alignment was found.
    """

    tier: Tier
    evidence: dict[str, Any]


def verify(first: Photo, second: Photo) -> Proof:
    """Say what the pixels of two photos prove.

    Examples:
        >>> from PIL import Image
        >>> noise = np.random.default_rng(0).integers(0, 256, (96, 128), dtype=np.uint8)
        >>> photo, mirror = Photo.of(Image.fromarray(noise)), Photo.of(Image.fromarray(noise[:, ::-1]))
        >>> verify(photo, mirror).tier
        'near_copy'
    """
    found = []
    for alignment in alignments(first, second):
        source = first.mirrored if alignment.flipped else first
        if (compared := _compared(source, second, alignment)) is not None:
            found.append((_tier(source, second, *compared), *compared))
    if not found:
        return Proof("similar_only", {})
    tier, alignment, agreement = min(found, key=lambda it: (get_args(Tier).index(it[0]), -_strength(it[2])))
    return Proof(tier, _evidence(first, second, alignment, agreement))


def _strength(agreement: Agreement) -> float:
    return agreement.share if agreement.blocks >= MIN_BLOCKS else agreement.grain


def _tier(first: Photo, second: Photo, alignment: Alignment, agreement: Agreement) -> Tier:
    if _is_proved(alignment, agreement) and not _is_another_shot(first, second, alignment, agreement):
        return "near_copy" if max(agreement.overlap) >= MIN_OVERLAP else "same_scene"
    return "same_scene" if alignment.inliers >= SCENE_INLIERS else "similar_only"


def _is_another_shot(first: Photo, second: Photo, alignment: Alignment, agreement: Agreement) -> bool:
    """Whether what disagrees has moved; asked only where something disagrees and no common noise says copy."""
    if agreement.grain >= SAME_GRAIN or (agreement.cut == 0 and agreement.share == 1):
        return False
    return gives_way(first.grey, second.grey, alignment.matrix) >= GIVES_WAY


def _is_proved(alignment: Alignment, agreement: Agreement) -> bool:
    same_grain = agreement.grain >= SAME_GRAIN
    if agreement.blocks and agreement.share < MIN_AGREEMENT:
        return False
    if agreement.blocks < MIN_BLOCKS:
        return same_grain
    # Stripes agree with other stripes once shifted to fit: something must agree that was not fitted.
    is_rich = agreement.blocks >= RICH_BLOCKS and agreement.spread >= RICH_SPREAD
    return same_grain or is_rich or alignment.inliers >= WITNESSES


def _compared(first: Photo, second: Photo, alignment: Alignment) -> tuple[Alignment, Agreement] | None:
    """Compare under the alignment and under its refinement; keep the better."""
    rough = compare(first.grey, second.grey, alignment.matrix)
    if rough is None:
        return None
    if _strength(rough) < REFINE_FROM:
        return alignment, rough
    finer = refined(first, second, alignment)
    fine = None if finer is None else compare(first.grey, second.grey, finer.matrix)
    if finer is None or fine is None or _strength(fine) < _strength(rough):
        return alignment, rough
    return finer, fine


def _evidence(first: Photo, second: Photo, alignment: Alignment, agreement: Agreement) -> dict[str, Any]:
    linear = alignment.matrix[:, :2] * (first.shrink / second.shrink)
    full = np.column_stack([linear, alignment.matrix[:, 2] / second.shrink])
    return {
        "flipped": alignment.flipped,
        "rotation_deg": round(math.degrees(math.atan2(linear[1, 0], linear[0, 0])), 1),
        "scale": round(math.sqrt(abs(float(np.linalg.det(linear)))), 3),
        "transform": [[round(float(value), 4) for value in row] for row in full],
        "inliers": alignment.inliers,
        "overlap": [round(share, 3) for share in agreement.overlap],
        "ncc": round(agreement.ncc, 3),
        "agreement": round(agreement.share, 3),
        "blocks": agreement.blocks,
        "grain": round(agreement.grain, 3),
    }
