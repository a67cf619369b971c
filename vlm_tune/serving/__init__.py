"""Before a model goes behind a server: what the folder lacks, what an adapter would lose, and the exact commands."""

from vlm_tune.serving.check import serving_check
from vlm_tune.serving.records import Engine, Finding, LostPart, RuntimeAdapter, ServerCommand, ServingCheck

__all__ = [
    "Engine",
    "Finding",
    "LostPart",
    "RuntimeAdapter",
    "ServerCommand",
    "ServingCheck",
    "serving_check",
]
