"""Whether probabilities can be trusted, and what to do with them: decide alone where sure, ask an API for the rest."""

from __future__ import annotations

from vlm_tune.evaluation.calibration.cascade import Cascade
from vlm_tune.evaluation.calibration.reliability import Calibration
from vlm_tune.evaluation.calibration.temperature import Temperature
from vlm_tune.evaluation.calibration.threshold import OperatingPoint, RiskCoverage, Threshold

__all__ = ["Calibration", "Cascade", "OperatingPoint", "RiskCoverage", "Temperature", "Threshold"]
