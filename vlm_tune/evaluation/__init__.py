"""Measuring predictors: ask them, count with intervals, compare two on the same examples."""

from __future__ import annotations

from vlm_tune.evaluation.comparison import Comparison, Tag, Verdict
from vlm_tune.evaluation.cost_model import BreakEven, CostModel, MonthlyCost
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator
from vlm_tune.evaluation.exports import ExportReport, Variant, compare_exports
from vlm_tune.evaluation.inflation import Inflation, leakage_inflation
from vlm_tune.evaluation.parity import Difference, ServingParity, serving_parity

__all__ = [
    "BreakEven",
    "Comparison",
    "CostModel",
    "Difference",
    "Evaluation",
    "Evaluator",
    "ExportReport",
    "Inflation",
    "MonthlyCost",
    "ServingParity",
    "Tag",
    "Variant",
    "Verdict",
    "compare_exports",
    "leakage_inflation",
    "serving_parity",
]
