"""What is where in each model architecture: its linear layers, and the tokens it spends on a photo."""

from vlm_tune.families.family import Family, shapes
from vlm_tune.families.finding import family_in, find_family, linear_names
from vlm_tune.families.grids import CropGrid, FixedGrid, Grid, PatchGrid, PooledGrid, TileGrid
from vlm_tune.families.layers import Coverage, Kind, Layers, Part, Region
from vlm_tune.families.registry import FAMILIES, family_of

__all__ = [
    "FAMILIES",
    "Coverage",
    "CropGrid",
    "Family",
    "FixedGrid",
    "Grid",
    "Kind",
    "Layers",
    "Part",
    "PatchGrid",
    "PooledGrid",
    "Region",
    "TileGrid",
    "family_in",
    "family_of",
    "find_family",
    "linear_names",
    "shapes",
]
