"""A look at the data before anything is trained: counts, sizes, tokens, copies, and photos that deserve a look."""

from vlm_tune.profiling.profiler import profile
from vlm_tune.profiling.records import CopyGroup, ImageTokens, Measured, Quantiles, Sample
from vlm_tune.profiling.result import Profile
from vlm_tune.profiling.tags import TAGS

__all__ = [
    "TAGS",
    "CopyGroup",
    "ImageTokens",
    "Measured",
    "Profile",
    "Quantiles",
    "Sample",
    "profile",
]
