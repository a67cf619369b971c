"""Near-duplicates across splits: found by embedding, proved by pixels, resolved without losing power."""

from vlm_tune.leakage.checker import LeakageChecker
from vlm_tune.leakage.copies import Copies, find_copies
from vlm_tune.leakage.pairs import LeakPair
from vlm_tune.leakage.remedies import Proposal, Strategy
from vlm_tune.leakage.report import LeakageReport
from vlm_tune.leakage.verify import Tier

__all__ = ["Copies", "LeakPair", "LeakageChecker", "LeakageReport", "Proposal", "Strategy", "Tier", "find_copies"]
