"""LoRA fine-tuning: plan, overfit gate, training, adapters, merging with proof."""

from vlm_tune.training.adapter import Adapter, AdapterCard
from vlm_tune.training.augmenting.settings import Augment
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.log import TrainingLog
from vlm_tune.training.merging.merge_report import MergeReport
from vlm_tune.training.merging.several import merge_adapters
from vlm_tune.training.overfit import OverfitReport
from vlm_tune.training.planning.plan import AdapterPlan
from vlm_tune.training.proving.audit import TokenAudit
from vlm_tune.training.trainer import LoRATrainer

__all__ = [
    "Adapter",
    "AdapterCard",
    "AdapterPlan",
    "Augment",
    "LoRATrainer",
    "MergeReport",
    "OverfitReport",
    "TokenAudit",
    "TrainConfig",
    "TrainingLog",
    "merge_adapters",
]
