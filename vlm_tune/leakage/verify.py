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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vlm_tune.embedding import MIRROR, sift
from vlm_tune.leakage.detail import SAME_GRAIN, Agreement, compare, gives_way

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Photo", "Proof", "Tier", "verify"]

Tier = Literal["identical", "near_copy", "same_scene", "similar_only"]
"""What a pair was proved to be, strongest first; only the first two are leaks."""

Array = NDArray[np.float32]

SHORT_SIDE, LONG_SIDE = 96, 256
"""Least and greatest length of the longer side at which photos are compared, in pixels."""
MIN_INLIERS = 5
"""Fewer matched features than this fit some transform by chance."""
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
WITHIN = 3.0
"""Pixels that a matched feature may lie off."""
FRAME_CORRELATION = 0.8
"""Two whole photos must look this much alike before they are laid frame on frame."""
REFINE_FROM = 0.2
"""A first alignment that agrees less than this is not worth refining."""


@dataclass(frozen=True)
class Photo:
    """One decoded photo, prepared for comparison.

    Attributes:
        grey: Grey levels 0 to 255, shape (height, width), at most `LONG_SIDE` long.
        shrink: Its size as a share of the original's; above 1 where that is very small.
    """

    grey: NDArray[np.uint8]
    shrink: float

    @classmethod
    def of(cls, image: Image) -> Photo:
        """Prepare a decoded image of any mode."""
        import cv2

        grey = np.asarray(image.convert("L"))
        longest = max(grey.shape)
        scale = min(max(longest, SHORT_SIDE), LONG_SIDE) / longest
        if scale != 1:
            size = max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale))
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            grey = np.asarray(cv2.resize(grey, size, interpolation=how))
        return cls(np.asarray(grey, np.uint8), scale)

    @cached_property
    def features(self) -> tuple[Array, Array]:
        """Positions (n, 2) and descriptors (n, 128) of its local features."""
        return sift(self.grey, limit=300)

    @cached_property
    def frame(self) -> Array:
        """The whole photo as 32 x 32 values of mean 0 and norm 1."""
        import cv2

        small = np.asarray(cv2.resize(self.grey, (32, 32), interpolation=cv2.INTER_AREA), np.float32)
        small -= small.mean()
        return np.asarray(small / (np.linalg.norm(small) + 1e-6), np.float32)

    @cached_property
    def mirrored(self) -> Photo:
        """The photo with left and right exchanged; its features come from the original's."""
        mirror = Photo(np.ascontiguousarray(self.grey[:, ::-1]), self.shrink)
        points, descriptors = self.features
        swapped = np.stack([self.grey.shape[1] - 1 - points[:, 0], points[:, 1]], axis=1)
        mirror.__dict__["features"] = (swapped, descriptors[:, MIRROR])
        return mirror


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


@dataclass(frozen=True)
class _Alignment:
    matrix: NDArray[np.float64]
    inliers: int
    flipped: bool


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
    for alignment in _alignments(first, second):
        source = first.mirrored if alignment.flipped else first
        if (refined := _refined(source, second, alignment)) is not None:
            found.append((_tier(source, second, *refined), *refined))
    if not found:
        return Proof("similar_only", {})
    tier, alignment, agreement = min(found, key=lambda it: (get_args(Tier).index(it[0]), -_strength(it[2])))
    return Proof(tier, _evidence(first, second, alignment, agreement))


def _strength(agreement: Agreement) -> float:
    return agreement.share if agreement.blocks >= MIN_BLOCKS else agreement.grain


def _tier(first: Photo, second: Photo, alignment: _Alignment, agreement: Agreement) -> Tier:
    if _is_proved(alignment, agreement) and not _is_another_shot(first, second, alignment, agreement):
        return "near_copy" if max(agreement.overlap) >= MIN_OVERLAP else "same_scene"
    return "same_scene" if alignment.inliers >= SCENE_INLIERS else "similar_only"


def _is_another_shot(first: Photo, second: Photo, alignment: _Alignment, agreement: Agreement) -> bool:
    """Whether what disagrees has moved; asked only where something disagrees and no common noise says copy."""
    if agreement.grain >= SAME_GRAIN or (agreement.cut == 0 and agreement.share == 1):
        return False
    return gives_way(first.grey, second.grey, alignment.matrix) >= GIVES_WAY


def _is_proved(alignment: _Alignment, agreement: Agreement) -> bool:
    same_grain = agreement.grain >= SAME_GRAIN
    if agreement.blocks and agreement.share < MIN_AGREEMENT:
        return False
    if agreement.blocks < MIN_BLOCKS:
        return same_grain
    # Stripes agree with other stripes once shifted to fit: something must agree that was not fitted.
    is_rich = agreement.blocks >= RICH_BLOCKS and agreement.spread >= RICH_SPREAD
    return same_grain or is_rich or alignment.inliers >= WITNESSES


def _alignments(first: Photo, second: Photo) -> Iterator[_Alignment]:
    """Ways the first photo may lie on the second, from both handednesses."""
    for flipped in (False, True):
        source = first.mirrored if flipped else first
        matched = _matches(source, second)
        if (matrix := _fit(*matched)) is not None and (fitting := _witnesses(matrix, *matched)) >= MIN_INLIERS:
            yield _Alignment(matrix, fitting, flipped)
        for turns in range(4):
            if float((np.rot90(source.frame, turns) * second.frame).sum()) >= FRAME_CORRELATION:
                matrix = _frame_on_frame(source, second, turns=turns)
                yield _Alignment(matrix, _witnesses(matrix, *matched), flipped)


def _matches(first: Photo, second: Photo) -> tuple[Array, Array]:
    """Positions, in both photos, of the features that are each other's clearly nearest; shapes (n, 2)."""
    (points, descriptors), (others, other_descriptors) = first.features, second.features
    if min(len(points), len(others)) < MIN_INLIERS:
        return points[:0], others[:0]
    likeness = descriptors @ other_descriptors.T
    there, back = likeness.argmax(axis=1), likeness.argmax(axis=0)
    rows = np.arange(len(points))
    runner_up = np.partition(likeness, -2, axis=1)[:, -2]
    # Lowe's ratio test on distances; unit vectors have squared distance 2 - 2 cos.
    clear = (1 - likeness[rows, there]) < 0.81 * (1 - runner_up)
    keep = (back[there] == rows) & clear & (likeness[rows, there] > 0.75)
    return points[keep], others[there[keep]]


def _fit(points: Array, others: Array) -> NDArray[np.float64] | None:
    """Fit a similarity transform to matched features, or None where there is none."""
    import cv2

    if len(points) < MIN_INLIERS:
        return None
    matrix, _ = cv2.estimateAffinePartial2D(
        points, others, method=cv2.RANSAC, ransacReprojThreshold=WITHIN, maxIters=1000
    )
    if matrix is None or not 0.2 < math.sqrt(abs(np.linalg.det(matrix[:, :2]))) < 5:
        return None
    return np.asarray(matrix, np.float64)


def _witnesses(matrix: NDArray[np.float64], points: Array, others: Array) -> int:
    """How many matched features a transform brings together."""
    apart = points @ matrix[:, :2].T + matrix[:, 2] - others
    return int((np.hypot(apart[:, 0], apart[:, 1]) <= WITHIN).sum())


def _frame_on_frame(first: Photo, second: Photo, *, turns: int) -> NDArray[np.float64]:
    """Return the transform that lays the first photo, turned to the left so often, on all of the second."""
    (height, width), (other_height, other_width) = first.grey.shape, second.grey.shape
    matrix = np.eye(3)
    for _ in range(turns):
        matrix = np.array([[0, 1, 0], [-1, 0, width - 1], [0, 0, 1.0]]) @ matrix
        width, height = height, width
    across, down = other_width / width, other_height / height
    # Pixel centres sit at half steps.
    return (np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]]) @ matrix)[:2]


def _refined(first: Photo, second: Photo, alignment: _Alignment) -> tuple[_Alignment, Agreement] | None:
    """Compare under the alignment and under its refinement; keep the better."""
    rough = compare(first.grey, second.grey, alignment.matrix)
    if rough is None:
        return None
    if _strength(rough) < REFINE_FROM:
        return alignment, rough
    matrix = _ecc(first.grey, second.grey, alignment.matrix)
    fine = None if matrix is None else compare(first.grey, second.grey, matrix)
    if matrix is None or fine is None or _strength(fine) < _strength(rough):
        return alignment, rough
    return _Alignment(matrix, alignment.inliers, alignment.flipped), fine


def _ecc(
    first: NDArray[np.uint8], second: NDArray[np.uint8], matrix: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Refine an affine transform by maximising correlation, or None where that does not converge."""
    import cv2

    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 20, 1e-4)
    start = cv2.invertAffineTransform(matrix).astype(np.float32)
    try:
        _, found = cv2.findTransformECC(
            _outlines(second), _outlines(first), start, cv2.MOTION_AFFINE, criteria, None, 1
        )
    except cv2.error:  # it raises where the photos do not correlate
        return None
    return np.asarray(cv2.invertAffineTransform(np.asarray(found, np.float64)), np.float64)


def _outlines(grey: NDArray[np.uint8]) -> Array:
    """Detail and outlines without shading; a bright caption or border counts no more than an edge."""
    import cv2

    pixels = grey.astype(np.float32)
    band = cv2.GaussianBlur(pixels, (0, 0), 1.0) - cv2.GaussianBlur(pixels, (0, 0), 8.0)
    limit = 3 * float(np.median(np.abs(band))) + 1
    return np.asarray(np.clip(band, -limit, limit), np.float32)


def _evidence(first: Photo, second: Photo, alignment: _Alignment, agreement: Agreement) -> dict[str, Any]:
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
