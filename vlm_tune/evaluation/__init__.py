"""Measuring predictors: ask them, count with intervals, compare two on the same examples."""

from __future__ import annotations

from vlm_tune.evaluation.comparison import Comparison, Tag, Verdict
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator
from vlm_tune.evaluation.inflation import Inflation, leakage_inflation

__all__ = ["Comparison", "Evaluation", "Evaluator", "Inflation", "Tag", "Verdict", "leakage_inflation"]
