"""What becomes of each photo of an epoch, drawn from seed, epoch and example alone; nothing is done to pixels here."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from vlm_tune.training.augmenting.settings import Augment

__all__ = ["AS_IT_IS", "OPERATIONS", "Change", "Mix", "View", "Views", "mean_answers"]

OPERATIONS = {
    "identity": 0.0,
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 150 / 331,
    "translate_y": 150 / 331,
    "rotate": 30.0,
    "brightness": 0.9,
    "saturation": 0.9,
    "contrast": 0.9,
    "sharpness": 0.9,
    "posterize": 4.0,
    "solarize": 1.0,
    "autocontrast": 0.0,
    "equalize": 0.0,
}
"""RandAugment's operations and how far each goes at magnitude 30, as in torchvision: slopes, shares of the side,
degrees, factors off 1, bits, and the share of the values that is turned round."""

_FACTORS = ("brightness", "contrast", "saturation")
_TURNED_ROUND = ("posterize", "solarize")
"""Those that go one way only."""

_DIGITS = 2
"""Of lambda. Small alphas draw many that are nearly 0 or 1: a second answer for a hundredth of a photo that nobody sees
would cost as much as one for half of it."""

_STRETCH = math.log(4 / 3)
_TRIES = 10


@dataclass(frozen=True)
class Change:
    """One change of a photo.

    Attributes:
        name: `crop`, `flip`, `blur` or one of `OPERATIONS`.
        values: What it takes: for a crop left, top, width and height as shares of the photo's sides.
    """

    name: str
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Mix:
    """Another photo that is mixed in.

    Attributes:
        index: Which example.
        weight: How much its loss counts.
        changes: What becomes of it before.
        drawn: Lambda as it was drawn, in hundredths.
        centre: The middle of CutMix's box, as shares of the sides; None for MixUp.
    """

    index: int
    weight: float
    changes: tuple[Change, ...]
    drawn: float
    centre: tuple[float, float] | None = None

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return what CutMix takes from the other photo: left, top, right and bottom in pixels, cut at the edges."""
        (x, y), half = self.centre or (0.5, 0.5), math.sqrt(1 - self.drawn) / 2
        left, right = (round(width * min(max(x + side, 0.0), 1.0)) for side in (-half, half))
        top, bottom = (round(height * min(max(y + side, 0.0), 1.0)) for side in (-half, half))
        return left, top, right, bottom

    def share(self, width: int, height: int) -> float:
        """Return lambda: how much of the first photo is left, for CutMix by the pixels of its box.

        Args:
            width: Of the first photo, in pixels.
            height: Of the first photo, in pixels.
        """
        if self.centre is None:
            return self.drawn
        left, top, right, bottom = self.box(width, height)
        return 1 - (right - left) * (bottom - top) / (width * height)


@dataclass(frozen=True)
class View:
    """How one photo is seen once.

    Attributes:
        changes: What becomes of the photo itself.
        mix: What is mixed in; None for nothing.
    """

    changes: tuple[Change, ...] = ()
    mix: Mix | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the photo is seen as it is."""
        return not self.changes and self.mix is None


AS_IT_IS = View()
"""How a photo is seen that nothing is done to."""


def mean_answers(augment: Augment) -> float:
    """Return how many answers a photo gets on average, if no two photos have the same label.

    Examples:
        >>> mean_answers(Augment(mixup=1.0)), mean_answers(Augment(mixup=1.0, mix_share=0.5)), mean_answers(Augment())
        (1.99, 1.495, 1.0)
    """
    from scipy.special import betainc

    if not augment.mixes:
        return 1.0
    alphas = [alpha for alpha in (augment.mixup, augment.cutmix) if alpha]
    lost = [2 * float(betainc(alpha, alpha, 0.5 * 10**-_DIGITS)) for alpha in alphas]
    return 1.0 + augment.mix_share * (1.0 - sum(lost) / len(lost))


class Views:
    """Draws how the photos of a training are seen.

    Args:
        augment: Which changes there are.
        weights: How much each example's loss counts.
        seed: Seed of the training.
    """

    def __init__(self, augment: Augment, weights: Sequence[float], *, seed: int) -> None:
        self._augment, self._weights, self._seed = augment, weights, seed

    def view(self, index: int, *, epoch: int, time: int, order: Sequence[int]) -> View:
        """Return how an example is seen.

        Args:
            index: Which example.
            epoch: Number of the pass, from 0.
            time: How often it has come in this epoch before.
            order: The examples of the epoch, from which the photo to be mixed in is drawn: as likely as it comes in
                training. One that draws itself stays as it is.
        """
        dice = random.Random(f"{self._seed} {epoch} {index} {time}")
        changes, augment = self._changes(dice), self._augment
        if not augment.mixes or dice.random() >= augment.mix_share:
            return View(changes)
        other = order[int(dice.random() * len(order))]
        if other == index:
            return View(changes)
        cuts = not augment.mixup or (augment.cutmix > 0 and dice.random() < 0.5)
        alpha = augment.cutmix if cuts else augment.mixup
        drawn = round(dice.betavariate(alpha, alpha), _DIGITS)
        centre = (dice.random(), dice.random()) if cuts else None
        return View(changes, Mix(other, self._weights[other], self._changes(dice), drawn, centre))

    def _changes(self, dice: random.Random) -> tuple[Change, ...]:
        augment, changes = self._augment, []
        if augment.crop is not None:
            changes.append(Change("crop", _crop(dice, *augment.crop)))
        if augment.flip and dice.random() < 0.5:
            changes.append(Change("flip"))
        changes += [_operation(dice, augment.magnitude) for _ in range(augment.rand_augment)]
        if augment.colour:
            factors = [Change(name, (1 + augment.colour * dice.uniform(-1, 1),)) for name in _FACTORS]
            dice.shuffle(factors)
            changes += factors
        if augment.blur and dice.random() < 0.5:
            changes.append(Change("blur", (augment.blur * dice.random(),)))
        return tuple(changes)


def _crop(dice: random.Random, least: float, largest: float) -> tuple[float, float, float, float]:
    """Return a part of a photo as shares of its sides; see `Augment.crop`."""
    area = dice.uniform(least, largest)
    width = height = math.sqrt(area)
    for _ in range(_TRIES):
        stretch = math.exp(dice.uniform(-_STRETCH, _STRETCH) / 2)
        if max(width * stretch, height / stretch) <= 1:
            width, height = width * stretch, height / stretch
            break
    return dice.uniform(0, 1 - width), dice.uniform(0, 1 - height), width, height


def _operation(dice: random.Random, magnitude: int) -> Change:
    name = dice.choice(list(OPERATIONS))
    size = OPERATIONS[name] * magnitude / 30
    if size and name not in _TURNED_ROUND and dice.random() < 0.5:
        size = -size
    return Change(name, (1 + size if name in (*_FACTORS, "sharpness") else size,))
