"""Exact and score-based statistics: one system, two and more on the same examples, probabilities, planning."""

from __future__ import annotations

from vlm_tune.statistics.calibration import (
    CalibrationError,
    Reliability,
    brier,
    calibration_error,
    fit_temperature,
    spiegelhalter_z,
)
from vlm_tune.statistics.clustered import design_effect, mcnemar_by_group, tango_by_group, wilson_by_group
from vlm_tune.statistics.f1 import ClassScores, F1Scores, f1_scores
from vlm_tune.statistics.means import mean, mean_score, positive_mean, ratio
from vlm_tune.statistics.paired import mcnemar_exact, mcnemar_mid_p, tango
from vlm_tune.statistics.power import (
    connor_sample_size,
    mcnemar_power,
    minimum_detectable_difference,
    sample_size_for_power,
)
from vlm_tune.statistics.proportions import mean_of_proportions, wilson
from vlm_tune.statistics.selection import SafeThreshold, clopper_pearson, safe_threshold
from vlm_tune.statistics.several import cochran_q, holm

__all__ = [
    "CalibrationError",
    "ClassScores",
    "F1Scores",
    "Reliability",
    "SafeThreshold",
    "brier",
    "calibration_error",
    "clopper_pearson",
    "cochran_q",
    "connor_sample_size",
    "design_effect",
    "f1_scores",
    "fit_temperature",
    "holm",
    "mcnemar_by_group",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "mcnemar_power",
    "mean",
    "mean_of_proportions",
    "mean_score",
    "minimum_detectable_difference",
    "positive_mean",
    "ratio",
    "safe_threshold",
    "sample_size_for_power",
    "spiegelhalter_z",
    "tango",
    "tango_by_group",
    "wilson",
    "wilson_by_group",
]
