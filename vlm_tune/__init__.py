"""vlm-tune: does a small open vision-language model fine-tuned on your photos beat the API you pay for?

    import vlm_tune as vt

Everything public is a name on this door. Names load on first use, so importing the package is quick and
touches nothing: no torch, no logging set-up, no environment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_tune import demo, errors, statistics, testing
    from vlm_tune._console import quiet
    from vlm_tune.audit import LabelAudit
    from vlm_tune.data import Dataset, MajorityVote
    from vlm_tune.embedding import OpenClip
    from vlm_tune.errors import VlmTuneError
    from vlm_tune.evaluation import (
        Calibration,
        Cascade,
        Comparison,
        ComparisonMatrix,
        CostModel,
        Evaluation,
        Evaluator,
        ExportReport,
        RiskCoverage,
        Temperature,
        compare_exports,
        leakage_inflation,
        power,
        run_noise,
        serving_parity,
    )
    from vlm_tune.experiments import (
        Choice,
        CurvePoint,
        LearningCurve,
        LogUniform,
        RayBackend,
        Sweep,
        SweepResult,
        Uniform,
    )
    from vlm_tune.leakage import LeakageChecker, LeakageReport, find_copies
    from vlm_tune.predictors import Baseline, Gemini, OpenAICompatible, Predictor, few_shot
    from vlm_tune.profiling import Profile, profile
    from vlm_tune.recipe import Recipe
    from vlm_tune.records import Estimate, Example, Prediction
    from vlm_tune.report import Report
    from vlm_tune.serving import ServingCheck, serving_check
    from vlm_tune.task import Task
    from vlm_tune.training import (
        Adapter,
        AdapterPlan,
        Augment,
        LoRATrainer,
        MergeReport,
        OverfitReport,
        TokenAudit,
        TrainConfig,
        merge_adapters,
    )
    from vlm_tune.versions import show_versions
    from vlm_tune.vlm import VLM

__version__ = "0.1.0"

_HOME = {
    "Adapter": "training",
    "AdapterPlan": "training",
    "Augment": "training",
    "Baseline": "predictors",
    "Calibration": "evaluation",
    "Cascade": "evaluation",
    "Choice": "experiments",
    "Comparison": "evaluation",
    "ComparisonMatrix": "evaluation",
    "CostModel": "evaluation",
    "CurvePoint": "experiments",
    "Dataset": "data",
    "Estimate": "records",
    "Evaluation": "evaluation",
    "Evaluator": "evaluation",
    "Example": "records",
    "ExportReport": "evaluation",
    "Gemini": "predictors",
    "LabelAudit": "audit",
    "LeakageChecker": "leakage",
    "LeakageReport": "leakage",
    "LearningCurve": "experiments",
    "LoRATrainer": "training",
    "LogUniform": "experiments",
    "MajorityVote": "data",
    "MergeReport": "training",
    "OpenAICompatible": "predictors",
    "OpenClip": "embedding",
    "OverfitReport": "training",
    "Prediction": "records",
    "Predictor": "predictors",
    "Profile": "profiling",
    "RayBackend": "experiments",
    "Recipe": "recipe",
    "Report": "report",
    "RiskCoverage": "evaluation",
    "ServingCheck": "serving",
    "Sweep": "experiments",
    "SweepResult": "experiments",
    "Task": "task",
    "Temperature": "evaluation",
    "TokenAudit": "training",
    "TrainConfig": "training",
    "Uniform": "experiments",
    "VLM": "vlm",
    "VlmTuneError": "errors",
    "compare_exports": "evaluation",
    "few_shot": "predictors",
    "find_copies": "leakage",
    "leakage_inflation": "evaluation",
    "merge_adapters": "training",
    "power": "evaluation",
    "profile": "profiling",
    "quiet": "_console",
    "run_noise": "evaluation",
    "serving_check": "serving",
    "serving_parity": "evaluation",
    "show_versions": "versions",
}
_MODULES = ("demo", "errors", "statistics", "testing")

__all__ = [
    "VLM",
    "Adapter",
    "AdapterPlan",
    "Augment",
    "Baseline",
    "Calibration",
    "Cascade",
    "Choice",
    "Comparison",
    "ComparisonMatrix",
    "CostModel",
    "CurvePoint",
    "Dataset",
    "Estimate",
    "Evaluation",
    "Evaluator",
    "Example",
    "ExportReport",
    "Gemini",
    "LabelAudit",
    "LeakageChecker",
    "LeakageReport",
    "LearningCurve",
    "LoRATrainer",
    "LogUniform",
    "MajorityVote",
    "MergeReport",
    "OpenAICompatible",
    "OpenClip",
    "OverfitReport",
    "Prediction",
    "Predictor",
    "Profile",
    "RayBackend",
    "Recipe",
    "Report",
    "RiskCoverage",
    "ServingCheck",
    "Sweep",
    "SweepResult",
    "Task",
    "Temperature",
    "TokenAudit",
    "TrainConfig",
    "Uniform",
    "VlmTuneError",
    "__version__",
    "compare_exports",
    "demo",
    "errors",
    "few_shot",
    "find_copies",
    "leakage_inflation",
    "merge_adapters",
    "power",
    "profile",
    "quiet",
    "run_noise",
    "serving_check",
    "serving_parity",
    "show_versions",
    "statistics",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"vlm_tune.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"vlm_tune.{name}")
    else:
        raise AttributeError(f"module 'vlm_tune' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
