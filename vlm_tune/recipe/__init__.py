"""The whole experiment as one typed, resumable object."""

from vlm_tune.recipe.recipe import DataSource, Opponent, Recipe
from vlm_tune.recipe.stages import Result

__all__ = ["DataSource", "Opponent", "Recipe", "Result"]
