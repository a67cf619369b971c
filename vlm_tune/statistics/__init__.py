"""Exact and score-based statistics for one system, for two on the same examples, and for planning."""

from __future__ import annotations

from vlm_tune.statistics.f1 import ClassScores, F1Scores, f1_scores
from vlm_tune.statistics.paired import (
    connor_sample_size,
    mcnemar_exact,
    mcnemar_mid_p,
    mcnemar_power,
    minimum_detectable_difference,
    sample_size_for_power,
    tango,
)
from vlm_tune.statistics.proportions import mean_of_proportions, wilson

__all__ = [
    "ClassScores",
    "F1Scores",
    "connor_sample_size",
    "f1_scores",
    "mcnemar_exact",
    "mcnemar_mid_p",
    "mcnemar_power",
    "mean_of_proportions",
    "minimum_detectable_difference",
    "sample_size_for_power",
    "tango",
    "wilson",
]
