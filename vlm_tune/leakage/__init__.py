"""Near-duplicates across splits: found by embedding, proved by pixels, resolved without losing power."""

from vlm_tune.leakage.checker import LeakageChecker
from vlm_tune.leakage.remedies import Remedy
from vlm_tune.leakage.report import LeakageReport, LeakPair
from vlm_tune.leakage.verify import Tier

__all__ = ["LeakPair", "LeakageChecker", "LeakageReport", "Remedy", "Tier"]
