"""The probabilities behind an evaluation's answers, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.counting import named

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["Probabilities", "has_probabilities", "probabilities"]

_LEAST = 1e-300


@dataclass(frozen=True, eq=False)
class Probabilities:
    """What a predictor thought of each class, on the examples where it said so."""

    rows: NDArray[np.int64]
    """Places of these m examples in the evaluation's table."""
    classes: NDArray[np.float64]
    """Probability of each class, m x C."""
    truth: NDArray[np.float64]
    """Which classes are true, m x C of zeros and ones."""
    answer: NDArray[np.float64]
    """Which classes the answer names, m x C."""
    multi_label: bool
    """Whether each class is decided by itself."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the answer is right, m."""
        right: NDArray[np.bool_] = (self.truth == self.answer).all(axis=1)
        return right

    @property
    def decisions(self) -> NDArray[np.float64]:
        """Probability that each decision is right: of the answer, m x 1, or of each class named or left out, m x C."""
        if self.multi_label:
            sure: NDArray[np.float64] = self.answer * self.classes + (1 - self.answer) * (1 - self.classes)
            return sure
        chosen: NDArray[np.float64] = (self.answer * self.classes).sum(axis=1, keepdims=True)
        return chosen

    @property
    def decided_right(self) -> NDArray[np.bool_]:
        """Whether each decision is right, of the same shape."""
        return self.truth == self.answer if self.multi_label else self.right[:, None]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """How sure each whole answer is, m: its probability or, of several decisions, that of the least sure one."""
        least: NDArray[np.float64] = self.decisions.min(axis=1)
        return least

    @property
    def log_scores(self) -> NDArray[np.float64]:
        """What a temperature divides: logarithms, m x C or, for each class left out and named, m C x 2."""
        import numpy as np

        log = np.log(np.maximum(self.classes, _LEAST))
        if not self.multi_label:
            return log
        return np.stack([np.log(np.maximum(1 - self.classes, _LEAST)), log], axis=-1).reshape(-1, 2)

    def at(self, temperature: float) -> Probabilities:
        """Return the probabilities at another temperature; the answers stay."""
        import numpy as np

        scores = self.log_scores / temperature
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        return replace(self, classes=weights[:, 1].reshape(self.classes.shape) if self.multi_label else weights)


def has_probabilities(evaluation: Evaluation) -> bool:
    """Whether any answer comes with a probability of each class."""
    return bool(evaluation.table["scores"].null_count < evaluation.num_examples)


def probabilities(evaluation: Evaluation) -> Probabilities:
    """Return the probabilities of the answered examples that have them.

    Raises:
        EvaluationError: None of the answers has probabilities.
    """
    import numpy as np
    import pyarrow.compute as pc

    table = evaluation.table
    there = pc.and_(pc.is_valid(table["scores"]), pc.equal(table["outcome"], "answered")).to_numpy()
    rows = np.flatnonzero(there)
    if not len(rows):
        raise EvaluationError(
            f"{evaluation.name} gave no probabilities; a VLM that scores the classes does, a server that returns "
            "log-probabilities, and the embedding baselines"
        )
    some = table.take(rows)
    scores = some["scores"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    truth, answer = (
        named(some[column], evaluation.classes, multi_label=evaluation.multi_label).toarray()
        for column in ("truth", "label")
    )
    return Probabilities(
        rows=rows,
        classes=np.minimum(np.exp(scores), 1.0),
        truth=truth,
        answer=answer,
        multi_label=evaluation.multi_label,
    )
