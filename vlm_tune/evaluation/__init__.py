"""Measuring predictors: ask them, count with intervals, compare two on the same examples."""

from __future__ import annotations

from vlm_tune.evaluation.calibration import (
    Calibration,
    Cascade,
    OperatingPoint,
    RiskCoverage,
    Temperature,
    Threshold,
)
from vlm_tune.evaluation.comparing.classes import ClassDelta
from vlm_tune.evaluation.comparing.counts import PairCounts
from vlm_tune.evaluation.comparing.examples import TaggedExamples
from vlm_tune.evaluation.comparing.matrix import ComparisonMatrix, MatrixCell
from vlm_tune.evaluation.comparing.noise import RunNoise, run_noise
from vlm_tune.evaluation.comparing.power import PowerPlan, power
from vlm_tune.evaluation.comparison import Comparison, Tag, Verdict
from vlm_tune.evaluation.cost_model import CostModel
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator
from vlm_tune.evaluation.exports import ExportReport, Variant, compare_exports
from vlm_tune.evaluation.inflation import Inflation, leakage_inflation
from vlm_tune.evaluation.monthly_costs import BreakEven, MonthlyCost
from vlm_tune.evaluation.parity import Difference, ServingParity, serving_parity

__all__ = [
    "BreakEven",
    "Calibration",
    "Cascade",
    "ClassDelta",
    "Comparison",
    "ComparisonMatrix",
    "CostModel",
    "Difference",
    "Evaluation",
    "Evaluator",
    "ExportReport",
    "Inflation",
    "MatrixCell",
    "MonthlyCost",
    "OperatingPoint",
    "PairCounts",
    "PowerPlan",
    "RiskCoverage",
    "RunNoise",
    "ServingParity",
    "Tag",
    "TaggedExamples",
    "Temperature",
    "Threshold",
    "Variant",
    "Verdict",
    "compare_exports",
    "leakage_inflation",
    "power",
    "run_noise",
    "serving_parity",
]
