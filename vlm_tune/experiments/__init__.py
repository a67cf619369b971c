"""Experiments: how accuracy grows with the number of training images, and which settings train best."""

from __future__ import annotations

from vlm_tune.experiments.backends import Backend, LocalBackend, Outcome
from vlm_tune.experiments.confirming import Confirmation
from vlm_tune.experiments.curve import LearningCurve
from vlm_tune.experiments.dimensions import Choice, LogUniform, Uniform
from vlm_tune.experiments.families import FamilyFit
from vlm_tune.experiments.forecast import Forecast, ImagesNeeded, MarginalValue
from vlm_tune.experiments.hindcast import Hindcast
from vlm_tune.experiments.on_ray import RayBackend
from vlm_tune.experiments.points import CurvePoint, FailedPoint
from vlm_tune.experiments.space import Axis, Setting
from vlm_tune.experiments.sweep import Sweep
from vlm_tune.experiments.sweep_result import SweepResult
from vlm_tune.experiments.trials import Score, Trial

__all__ = [
    "Axis",
    "Backend",
    "Choice",
    "Confirmation",
    "CurvePoint",
    "FailedPoint",
    "FamilyFit",
    "Forecast",
    "Hindcast",
    "ImagesNeeded",
    "LearningCurve",
    "LocalBackend",
    "LogUniform",
    "MarginalValue",
    "Outcome",
    "RayBackend",
    "Score",
    "Setting",
    "Sweep",
    "SweepResult",
    "Trial",
    "Uniform",
]
