"""Measuring predictors: ask them, count with intervals, compare two on the same examples."""

from __future__ import annotations

from vlm_tune.evaluation.comparison import Comparison, Tag, Verdict
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator

__all__ = ["Comparison", "Evaluation", "Evaluator", "Tag", "Verdict"]
