"""Datasets: reading them from disk, splitting them, and taking parts of them."""

from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SPLITS, SplitName

__all__ = ["SPLITS", "Dataset", "SplitName"]
