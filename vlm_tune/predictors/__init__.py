"""Everything that answers a task's question without being trained here: baselines and paid APIs."""

from __future__ import annotations

from vlm_tune.predictors.baselines import Baseline
from vlm_tune.predictors.gemini import Gemini, GeminiOptions
from vlm_tune.predictors.predictor import Predictor
from vlm_tune.predictors.remote import RetryPolicy

__all__ = ["Baseline", "Gemini", "GeminiOptions", "Predictor", "RetryPolicy"]
