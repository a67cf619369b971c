"""Everything that answers a task's question without being trained here: baselines and paid APIs."""

from __future__ import annotations

from vlm_tune.predictors.baselines import Baseline
from vlm_tune.predictors.gemini import Gemini
from vlm_tune.predictors.gemini_batch_options import BatchOptions
from vlm_tune.predictors.gemini_estimate import CallEstimate
from vlm_tune.predictors.gemini_options import GeminiOptions
from vlm_tune.predictors.openai import OpenAICompatible
from vlm_tune.predictors.openai_options import OpenAIOptions
from vlm_tune.predictors.predictor import Predictor
from vlm_tune.predictors.remote import RetryPolicy
from vlm_tune.predictors.shots import few_shot

__all__ = [
    "Baseline",
    "BatchOptions",
    "CallEstimate",
    "Gemini",
    "GeminiOptions",
    "OpenAICompatible",
    "OpenAIOptions",
    "Predictor",
    "RetryPolicy",
    "few_shot",
]
