"""One point of a learning curve: a model trained on so many images, and how it did on the test images."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlm_tune.errors import EvaluationError
from vlm_tune.experiments.noted import Rightness
from vlm_tune.records import Estimate, Money, Record
from vlm_tune.statistics import wilson

if TYPE_CHECKING:
    import pyarrow as pa

    from vlm_tune.evaluation import Evaluation

__all__ = ["CurvePoint", "FailedPoint", "images_tested"]


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
    rightness: Rightness | None = None
    """Whether each test image was answered right, in the order of the test set; `01101...` in a file."""
    test_set: str | None = None
    """Fingerprint of the test images; points of one curve have the same."""
    train_accuracy: Estimate | None = None
    """Accuracy on the training images themselves."""
    cost: Money | None = None
    """What the training cost."""
    seconds: NonNegativeFloat | None = None
    """How long the training took."""

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

    @property
    def sentence(self) -> str:
        """The point in words."""
        parts = [f"{self.size:,} images, seed {self.seed}: {self.accuracy.percent()} of {self.n_test:,} test images"]
        if self.train_accuracy is not None:
            trained = self.train_accuracy
            parts.append(f"{100 * trained.value:.1f} % of {trained.n:,} training images")
        if self.seconds is not None:
            parts.append(f"{self.seconds:.3g} s")
        return ", ".join([*parts, *([str(self.cost)] if self.cost else [])])

    @classmethod
    def of(
        cls,
        evaluation: Evaluation,
        *,
        size: int,
        seed: int,
        train_accuracy: Estimate | None = None,
        cost: Money | None = None,
        seconds: float | None = None,
    ) -> Self:
        """Return the point of a trained model's evaluation on the test images.

        An image that nobody could answer, such as one that does not decode, is left out, as `accuracy` does.

        Args:
            evaluation: The model's answers about the test images.
            size: Training images.
            seed: What the subset and the training were drawn with.
            train_accuracy: Accuracy on the training images, as of another evaluation.
            cost: What the training cost.
            seconds: How long the training took.

        Raises:
            EvaluationError: Too many images are missing for there to be an accuracy.

        Examples:
            >>> from vlm_tune.evaluation import Evaluation
            >>> truth = {"1.jpg": "dent", "2.jpg": "crack", "3.jpg": "dent"}
            >>> said = Evaluation.from_answers("tuned", truth=truth, answers=dict.fromkeys(truth, "dent"),
            ...     classes=["crack", "dent"])
            >>> point = CurvePoint.of(said, size=25, seed=0)
            >>> point.right, point.n_test, point.rightness
            (2, 3, (True, False, True))
        """
        # It raises where too much is missing.
        _ = evaluation.accuracy
        rows = _answered(evaluation).select(["truth", "label"]).to_pylist()
        return cls.of_answers(
            [row["label"] == row["truth"] for row in rows],
            size=size,
            seed=seed,
            test_set=images_tested(evaluation),
            train_accuracy=train_accuracy,
            cost=cost,
            seconds=seconds,
        )

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


class FailedPoint(Record):
    """A training that came to nothing, and why; it is tried again when the curve is run again."""

    size: PositiveInt
    """Training images."""
    seed: NonNegativeInt
    """What the subset and the training were drawn with."""
    error: str
    """What was the matter."""

    @property
    def sentence(self) -> str:
        """The failure in words."""
        return f"{self.size:,} images, seed {self.seed}: failed: {self.error}"


def images_tested(evaluation: Evaluation) -> str:
    """Return the fingerprint of the images that an evaluation is about: ids, classes, and their order."""
    rows = _answered(evaluation).select(["example_id", "truth"]).to_pylist()
    content = json.dumps([list(row.values()) for row in rows], ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _answered(evaluation: Evaluation) -> pa.Table:
    import pyarrow.compute as pc

    return evaluation.table.filter(pc.not_equal(evaluation.table["outcome"], "failed"))
