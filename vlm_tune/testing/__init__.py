"""Doubles for your own tests: a small dataset, a predictor that says what you tell it, fake servers.

All of them work offline. The fake Gemini and the fake OpenAI are real servers on 127.0.0.1 that speak the services'
wire formats, so the code under test runs the real clients, retries and all.
"""

from __future__ import annotations

from vlm_tune.testing.gemini import FakeGeminiServer, Fault, GeminiRequest
from vlm_tune.testing.gemini_batch import BatchFault, FakeBatches, FakeJob
from vlm_tune.testing.openai import FakeOpenAIServer, OpenAIFault, OpenAIRequest
from vlm_tune.testing.scripted import ScriptedPredictor
from vlm_tune.testing.squares import tiny_dataset

__all__ = [
    "BatchFault",
    "FakeBatches",
    "FakeGeminiServer",
    "FakeJob",
    "FakeOpenAIServer",
    "Fault",
    "GeminiRequest",
    "OpenAIFault",
    "OpenAIRequest",
    "ScriptedPredictor",
    "tiny_dataset",
]
