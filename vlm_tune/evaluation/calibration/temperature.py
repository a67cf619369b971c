"""One number that makes a model as sure of itself as it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlm_tune.evaluation.comparing.counts import groups_of
from vlm_tune.evaluation.probabilities import probabilities
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import fit_temperature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["Temperature"]


class Temperature(Record):
    """The temperature fitted to a model's answers; probabilities to its power 1 / T, normalised, are calibrated best.

    It changes no answer of one class, only how sure it is. Fit it on validation photos, use it on others.
    """

    value: Estimate
    """The temperature with its profile-likelihood interval: above 1 the model is too sure, below 1 not enough."""
    fitted_on: str
    """Fingerprint of the photos it was fitted on."""
    system: str
    """Whose answers they were."""

    @classmethod
    def fit(cls, validation: Evaluation) -> Temperature:
        """Fit the temperature to a model's answers on validation photos.

        Raises:
            EvaluationError: The answers have no probabilities.
        """
        found = probabilities(validation)
        groups = groups_of(validation.table["group"].take(found.rows))
        truth = found.truth.astype(np.int64)
        if validation.multi_label:
            # Each class is a decision of its own, and those about one photo belong together.
            alone: NDArray[np.int64] = np.arange(len(truth)) if groups is None else groups
            estimate = fit_temperature(found.log_scores, truth.ravel(), groups=np.repeat(alone, truth.shape[1]))
        else:
            estimate = fit_temperature(found.log_scores, truth.argmax(axis=1), groups=groups)
        return cls(value=estimate, fitted_on=validation.dataset_fingerprint, system=validation.name)

    def __str__(self) -> str:
        return f"T = {self.value.value:.3g} [{self.value.low:.3g}, {self.value.high:.3g}] (n={self.value.n})"
