"""The synthetic photos of the demo: 417 drawn car panels, with known near-duplicates and wrong labels.

They are drawn, not taken: no camera, car or person is behind them. The numbers at the top set how hard
they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from vlm_tune._files import atomic_directory
from vlm_tune.demo.camera import Retake, develop, encode, retake
from vlm_tune.demo.clutter import draw_body, draw_dirt, draw_fittings
from vlm_tune.demo.damage import draw_crack, draw_dent, draw_scratch
from vlm_tune.demo.surface import lit, new_surface
from vlm_tune.errors import StorageError

__all__ = ["CLASSES", "DemoPhoto", "DemoPhotos", "Twin", "photos"]

CLASSES = ("crack", "dent", "scratch")

SHARES = (0.28, 0.34, 0.38)
"""Share of each class, in the order of `CLASSES`."""
SEVERITY = ((0.25, 1.0), (0.35, 1.0), (0.3, 1.0))
"""How plain the damage of each class is, from and to (0 is hardly to be seen, 1 is plain)."""
CLUTTER = (0.0, 1.0)
"""How dirty the cars are, from and to."""
GRAIN = 3.0
"""Mean standard deviation of the sensor noise, in grey levels."""
BLUR = 0.8
"""Largest blur, in photo pixels."""
AMBIGUOUS_SHARE = 0.08
"""Share of photos that a person would argue about."""

NUM_TRAIN = 300
NUM_CLEAN_TEST = 98
NUM_TWINS = 19
NUM_WRONG: Mapping[str, int] = {"train": 5, "test": 2}

_SIZES = ((192, 144), (208, 160), (176, 144), (192, 160), (144, 192), (160, 208), (168, 168))
_INDEX = "photos.json"
_NOTE = "Synthetic: every photo was drawn by vlm_tune.demo.photos, none was taken."
_RETAKES = (
    (("re-encoded",),) * 4
    + (("cropped",),) * 4
    + (("brightened",),) * 4
    + (("flipped",),) * 3
    + (("cropped", "brightened"), ("flipped", "cropped"), ("flipped", "brightened"))
    + (("cropped", "flipped", "brightened"),)
)

Split = Literal["train", "test"]


@dataclass(frozen=True)
class DemoPhoto:
    """One synthetic photo.

    Attributes:
        id: Its path in the written folder, such as `train/crack/photo_0012.jpg`.
        jpeg: The encoded photo, without metadata.
        label: The recorded class, which for a few photos is wrong.
        split: `train` or `test`.
    """

    id: str
    jpeg: bytes
    label: str
    split: Split


@dataclass(frozen=True)
class Twin:
    """A test photo that is a copy of a training photo.

    Attributes:
        test_id: The copy.
        train_id: The photo it was made from.
        how: What was done to it.
    """

    test_id: str
    train_id: str
    how: Retake


@dataclass(frozen=True)
class DemoPhotos:
    """The set as it is shipped: 300 training and 117 test photos, 19 of which leak from training.

    Attributes:
        seed: The seed that it was drawn from.
        photos: All photos, training first.
        twins: The near-duplicates across the splits.
        wrong_labels: Id of each wrongly labelled photo and its true class.
        ambiguous: Ids of the photos that a person would argue about.
    """

    seed: int
    photos: tuple[DemoPhoto, ...]
    twins: tuple[Twin, ...]
    wrong_labels: Mapping[str, str]
    ambiguous: frozenset[str]

    def __len__(self) -> int:
        return len(self.photos)

    def write(self, folder: str | Path) -> Path:
        """Write the photos into split and class folders, with what is known about them in `photos.json`.

        A folder that an earlier call wrote is replaced.

        Args:
            folder: Where to; it may not hold anything else.

        Returns:
            The folder, ready for `Dataset.from_folder`.

        Raises:
            StorageError: The folder holds other files, or cannot be written.
        """
        target = Path(folder)
        if target.exists() and not (target / _INDEX).is_file() and (target.is_file() or any(target.iterdir())):
            raise StorageError(f"{target} holds something other than the demo's photos; name a new folder")
        with atomic_directory(target) as unfinished:
            for photo in self.photos:
                path = unfinished / photo.id
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(photo.jpeg)
            text = json.dumps(self._index(), indent=2)
            (unfinished / _INDEX).write_text(text + "\n", encoding="utf-8")
        return target

    def _index(self) -> dict[str, object]:
        return {
            "synthetic": True,
            "note": _NOTE,
            "seed": self.seed,
            "classes": list(CLASSES),
            "twins": [{**asdict(twin), "steps": twin.how.steps} for twin in self.twins],
            "wrong_labels": dict(self.wrong_labels),
            "ambiguous": sorted(self.ambiguous),
        }


def photos(seed: int = 0) -> DemoPhotos:
    """Draw the synthetic photos of the demo.

    Equal seeds give equal bytes (with the same OpenCV and NumPy); it takes a few seconds on one core.

    Args:
        seed: Not negative.

    Returns:
        417 photos in 3 classes. Moving the 19 leaking test photos into training gives 319 and 98.

    Examples:
        >>> demo = photos(seed=0)
        >>> len(demo), len(demo.twins)
        (417, 19)
    """
    rng = np.random.default_rng(seed)
    plan = [*_plan(rng, "train", NUM_TRAIN), *_plan(rng, "test", NUM_CLEAN_TEST)]
    originals = _pick_originals(rng, plan)
    numbers = rng.permutation(len(plan) + len(originals)) + 1
    taken = [draft.photo(int(number), seed) for draft, number in zip(plan, numbers, strict=False)]
    copies, twins = [], []
    for position, steps, number in zip(originals, _RETAKES, numbers[len(plan) :], strict=True):
        source, how = taken[position], _how(rng, steps)
        copy_id = f"test/{source.label}/photo_{number:04d}.jpg"
        copies.append(DemoPhoto(copy_id, retake(source.jpeg, how), source.label, "test"))
        twins.append(Twin(copy_id, source.id, how))
    drawn = list(zip(plan, taken, strict=True))
    return DemoPhotos(
        seed=seed,
        photos=tuple(sorted([*taken, *copies], key=lambda photo: (photo.split != "train", photo.id))),
        twins=tuple(sorted(twins, key=lambda twin: twin.test_id)),
        wrong_labels=MappingProxyType({p.id: d.damage for d, p in drawn if d.damage != d.label}),
        ambiguous=frozenset(p.id for d, p in drawn if d.ambiguous),
    )


@dataclass(frozen=True)
class _Draft:
    """What a photo is to show, before it is drawn."""

    split: Split
    damage: str
    label: str
    ambiguous: bool

    def photo(self, number: int, seed: int) -> DemoPhoto:
        # A generator of its own: one photo drawn differently leaves the others as they are.
        rng = np.random.default_rng([seed, number])
        jpeg = _draw(rng, self.damage, ambiguous=self.ambiguous)
        return DemoPhoto(f"{self.split}/{self.label}/photo_{number:04d}.jpg", jpeg, self.label, self.split)


def _plan(rng: np.random.Generator, split: Split, total: int) -> list[_Draft]:
    damages = [name for name, count in zip(CLASSES, _apportion(total), strict=True) for _ in range(count)]
    order = rng.permutation(total)
    wrong, ambiguous = NUM_WRONG[split], round(AMBIGUOUS_SHARE * total)
    drafts = []
    for place, index in enumerate(order):
        damage = damages[index]
        others = [name for name in CLASSES if name != damage]
        label = str(rng.choice(others)) if place < wrong else damage
        drafts.append(_Draft(split, damage, label, wrong <= place < wrong + ambiguous))
    return drafts


def _apportion(total: int) -> list[int]:
    """Split a total by `SHARES`, largest remainders first."""
    exact = np.array(SHARES) * total
    counts = np.floor(exact).astype(int)
    for index in np.argsort(counts - exact)[: total - int(counts.sum())]:
        counts[index] += 1
    return [int(count) for count in counts]


def _pick_originals(rng: np.random.Generator, plan: Sequence[_Draft]) -> list[int]:
    """Positions of the training photos to copy: rightly labelled, in the shares of the classes, mixed."""
    chosen: list[int] = []
    for name, count in zip(CLASSES, _apportion(NUM_TWINS), strict=True):
        fit = [i for i, draft in enumerate(plan) if draft.split == "train" and draft.damage == draft.label == name]
        chosen += [int(i) for i in rng.choice(fit, count, replace=False)]
    return [int(i) for i in rng.permutation(chosen)]


def _how(rng: np.random.Generator, steps: Sequence[str]) -> Retake:
    """A random copy of the wanted kind."""
    cut = [0.0] * 4
    if "cropped" in steps:
        for low, high in ((0, 2), (1, 3)):
            total, share = rng.uniform(0.05, 0.15), rng.uniform(0, 1)
            cut[low], cut[high] = round(total * share, 4), round(total * (1 - share), 4)
    lighter = "brightened" in steps
    return Retake(
        crop=(cut[0], cut[1], cut[2], cut[3]),
        flipped="flipped" in steps,
        contrast=round(float(rng.uniform(0.95, 1.12)), 3) if lighter else 1.0,
        brightness=round(float(rng.uniform(8, 20)), 1) if lighter else 0.0,
        scale=round(float(rng.uniform(0.75, 1.1)), 3),
        quality=int(rng.integers(55, 80)),
    )


def _draw(rng: np.random.Generator, damage: str, *, ambiguous: bool) -> bytes:
    """Draw one photo and return it as a JPEG."""
    size = _SIZES[rng.integers(len(_SIZES))]
    surface = new_surface(rng, size)
    draw_body(surface, rng)
    draw_fittings(surface, rng)
    severity = float(rng.uniform(*SEVERITY[CLASSES.index(damage)]))
    if damage == "dent":
        draw_dent(surface, rng, 1.0 if ambiguous else severity)
        if ambiguous:
            draw_scratch(surface, rng, 0.0, most=2)
    elif damage == "crack":
        draw_crack(surface, rng, 0.1 if ambiguous else severity)
    else:
        draw_scratch(surface, rng, 0.0 if ambiguous else severity)
    draw_dirt(surface, rng, float(rng.uniform(*CLUTTER)))
    pixels = develop(lit(surface, rng), rng, size=size, grain=GRAIN, blur=BLUR)
    return encode(pixels, int(rng.integers(82, 95)))
