"""One point of a learning curve: a model trained on so many images, and how it did on the test images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, field_serializer, field_validator

from vlm_tune.errors import EvaluationError
from vlm_tune.records import Estimate, Money, Record
from vlm_tune.statistics import wilson

__all__ = ["CurvePoint"]


class CurvePoint(Record):
    """One training: its size and seed, and how many test images came out right.

    Raises:
        EvaluationError: The counts are impossible, or contradict `rightness`, or a number is NaN.

    Examples:
        >>> print(CurvePoint(size=100, seed=0, right=74, n_test=98).accuracy)
        0.755 [0.661, 0.830] (n=98)
    """

    size: PositiveInt
    """Training images."""
    seed: NonNegativeInt
    """What the subset and the training were drawn with."""
    right: NonNegativeInt
    """Test images answered right."""
    n_test: PositiveInt
    """Test images."""
    rightness: tuple[bool, ...] | None = None
    """Whether each test image was answered right, in the order of the test set; `01101...` in a file."""
    test_set: str | None = None
    """Fingerprint of the test images; points of one curve have the same."""
    train_accuracy: Estimate | None = None
    """Accuracy on the training images themselves."""
    cost: Money | None = None
    """What the training cost."""
    seconds: NonNegativeFloat | None = None
    """How long the training took."""

    @field_validator("rightness", mode="before")
    @classmethod
    def _unpacked(cls, value: Any) -> Any:
        if isinstance(value, str) and not set(value) - {"0", "1"}:
            return tuple(letter == "1" for letter in value)
        return value

    @field_serializer("rightness", when_used="json-unless-none")
    def _packed(self, value: tuple[bool, ...]) -> str:
        return "".join("01"[one] for one in value)

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what cannot be."""
        where = f"the point at {self.size} images, seed {self.seed}"
        if self.right > self.n_test:
            raise EvaluationError(f"{where} has {self.right} of {self.n_test} test images right, which is impossible")
        if self.rightness is not None and (len(self.rightness), sum(self.rightness)) != (self.n_test, self.right):
            raise EvaluationError(
                f"{where} has {self.right} of {self.n_test} test images right, but its rightness says "
                f"{sum(self.rightness)} of {len(self.rightness)}"
            )
        numbers = [self.seconds or 0.0, self.cost.usd if self.cost else 0.0]
        if self.train_accuracy is not None:
            numbers += [self.train_accuracy.value, self.train_accuracy.low, self.train_accuracy.high]
        if not all(map(math.isfinite, numbers)):
            raise EvaluationError(f"{where} has a training accuracy, cost or time that is not finite")

    @property
    def accuracy(self) -> Estimate:
        """Accuracy on the test images, with its Wilson interval."""
        return wilson(self.right, self.n_test)

    @property
    def gap(self) -> float | None:
        """Training accuracy less test accuracy."""
        return None if self.train_accuracy is None else self.train_accuracy.value - self.accuracy.value

    @classmethod
    def of_answers(
        cls,
        rightness: Iterable[object],
        *,
        size: int,
        seed: int,
        test_set: str | None = None,
        train_accuracy: Estimate | None = None,
        cost: Money | None = None,
        seconds: float | None = None,
    ) -> Self:
        """Return the point of answers that are right or wrong, one for each test image, in the test set's order.

        Examples:
            >>> CurvePoint.of_answers([True, False, True], size=25, seed=0).right
            2
        """
        right = tuple(map(bool, rightness))
        return cls(
            size=size,
            seed=seed,
            right=sum(right),
            n_test=len(right),
            rightness=right,
            test_set=test_set,
            train_accuracy=train_accuracy,
            cost=cost,
            seconds=seconds,
        )
