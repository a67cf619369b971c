"""`Augment`: which changes training makes to its photos; nothing else ever sees them."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    field_validator,
)

from vlm_tune.training.settings import Settings

__all__ = ["Augment"]

Alpha = Annotated[float, Field(ge=0.0, le=100.0)]


class Augment(Settings):
    """Changes to training photos, each switched on by its name: what leaves a label true depends on the labels.

    Every photo is changed anew in every epoch, by draws from the seed, the epoch and the example alone. Changes come in
    the order of the fields, at the size at which the model gets the photo, which they keep. Validation, the overfit
    gate, evaluation and serving never change a photo.

    **MixUp** (Zhang et al. 2018, arXiv 1710.09412) shows lambda x photo a + (1 - lambda) x photo b, **CutMix** (Yun et
    al. 2019, arXiv 1905.04899) photo a with a box of b; there lambda is the share of the pixels that are left of a. The
    other photo is drawn from those of the epoch, changed by draws of its own, and resized to a's size where it has
    another. The loss is lambda x loss(answer a) + (1 - lambda) x loss(answer b), each the sum over that answer's own
    tokens: the cross-entropy with a target that holds both answers, whatever their lengths. A step's loss is the sum
    over its photos over the sum of lambda x tokens(a) + (1 - lambda) x tokens(b).

    Raises:
        TrainingError: A value is out of range or a field is unknown; the message names the field.

    Examples:
        >>> Augment(crop=(0.8, 1.0), colour=0.2).mixes
        False
        >>> Augment(mixup=0.2).mixes
        True
    """

    crop: tuple[float, float] | None = None
    """Least and largest share of the photo's area that is cut out and resized to the whole; its proportions are up to
    4 to 3 off the photo's. What the label is about must be in the smallest part. None cuts nothing."""
    flip: bool = False
    """Mirror every other photo, left to right. Off where left and right are the label, or writing is read."""
    rand_augment: NonNegativeInt = 0
    """How many of RandAugment's 14 operations each photo gets (Cubuk et al. 2020, arXiv 1909.13719): turned, sheared,
    shifted, and with other tones and colours. It does change colours."""
    magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """How far RandAugment's operations go, in thirtieths."""
    colour: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Largest change of brightness, contrast and saturation, each by a factor from 1 - colour to 1 + colour. Hues stay:
    they may be what a label is about."""
    blur: Annotated[float, Field(ge=0.0, le=0.1)] = 0.0
    """Largest standard deviation of a Gaussian blur over the photo's shorter side; every other photo is blurred."""
    mixup: Alpha = 0.0
    """Alpha of MixUp, whose lambda comes from Beta(alpha, alpha), in hundredths; 0 is off. With both, each photo gets
    one of them."""
    cutmix: Alpha = 0.0
    """Alpha of CutMix; 0 is off."""
    mix_share: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Share of the photos that are mixed, where MixUp or CutMix is on."""

    @field_validator("crop")
    @classmethod
    def _a_part(cls, value: tuple[NonNegativeFloat, NonNegativeFloat] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError("needs two shares of the photo's area, 0 < least <= largest <= 1")
        return value

    @property
    def mixes(self) -> bool:
        """Whether photos are mixed."""
        return bool(self.mixup or self.cutmix) and self.mix_share > 0

    @property
    def words(self) -> str:
        """What is on, in one line.

        Examples:
            >>> Augment(crop=(0.8, 1.0), flip=True, mixup=0.2, mix_share=0.5).words
            'crop 0.8 to 1, flip, MixUp 0.2, 50% of the photos mixed'
        """
        parts = [f"crop {self.crop[0]:g} to {self.crop[1]:g}"] if self.crop else []
        parts += ["flip"] if self.flip else []
        parts += [f"RandAugment {self.rand_augment} x {self.magnitude}"] if self.rand_augment else []
        values = {"colour": self.colour, "blur": self.blur}
        if self.mixes:
            values |= {"MixUp": self.mixup, "CutMix": self.cutmix}
        parts += [f"{name} {value:g}" for name, value in values.items() if value]
        parts += [f"{self.mix_share:.0%} of the photos mixed"] if self.mixes and self.mix_share < 1 else []
        return ", ".join(parts) or "nothing"

    @property
    def is_off(self) -> bool:
        """Whether nothing is changed at all."""
        return not (self.crop or self.flip or self.colour or self.blur or self.rand_augment or self.mixes)
