"""Vision-language models as predictors: loading, prompts, exact scoring, generation."""

from vlm_tune.vlm.model import VLM
from vlm_tune.vlm.resident import Resident

__all__ = ["VLM", "Resident"]
