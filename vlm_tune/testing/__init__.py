"""Doubles for your own tests: a small dataset, a predictor that says what you tell it, a fake Gemini.

All of them work offline. The fake Gemini is a real server on 127.0.0.1 that speaks the service's wire format,
so the code under test runs the real client, retries and all.
"""

from __future__ import annotations

from vlm_tune.testing.gemini import FakeGeminiServer, Fault, GeminiRequest
from vlm_tune.testing.scripted import ScriptedPredictor
from vlm_tune.testing.squares import tiny_dataset

__all__ = ["FakeGeminiServer", "Fault", "GeminiRequest", "ScriptedPredictor", "tiny_dataset"]
