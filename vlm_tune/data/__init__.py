"""Datasets: reading them, splitting them, and taking parts of them."""

from vlm_tune.data.balance import Balance, Deviation
from vlm_tune.data.coco import MajorityVote
from vlm_tune.data.dataset import Dataset
from vlm_tune.data.quarantine import Quarantine, Quarantined
from vlm_tune.data.splitting import SPLITS, SplitName

__all__ = ["SPLITS", "Balance", "Dataset", "Deviation", "MajorityVote", "Quarantine", "Quarantined", "SplitName"]
