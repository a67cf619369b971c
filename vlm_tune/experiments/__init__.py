"""Experiments: how accuracy grows with the number of training images."""

from __future__ import annotations

from vlm_tune.experiments.curve import LearningCurve
from vlm_tune.experiments.families import FamilyFit
from vlm_tune.experiments.forecast import Forecast, ImagesNeeded, MarginalValue
from vlm_tune.experiments.points import CurvePoint

__all__ = ["CurvePoint", "FamilyFit", "Forecast", "ImagesNeeded", "LearningCurve", "MarginalValue"]
