"""What is where in each model architecture: its linear layers, and the tokens it spends on a photo.

The patterns are full matches on module names of the transformers classes, checked in the tests against the
real module trees. The projector has no attention of its own; its linear layers count as its attention, so
that the kind `attention` reaches every part of the model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlm_tune.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

__all__ = [
    "FAMILIES",
    "Coverage",
    "Family",
    "Kind",
    "Layers",
    "Part",
    "PatchGrid",
    "Region",
    "TileGrid",
    "family_of",
    "linear_names",
]

Region = Literal["vision", "projector", "language"]
"""A third of a vision-language model."""

Kind = Literal["attention", "mlp", "conv"]
"""What a linear layer does in its block."""

Part = tuple[Region, Kind]
"""The linear layers of one kind in one region."""


@dataclass(frozen=True)
class Layers:
    """Where one part's linear layers are."""

    block: str
    """Pattern of the module that holds them."""
    names: str
    """Pattern of their own names inside that module."""

    @property
    def pattern(self) -> str:
        """Pattern of the full module names."""
        return rf"{self.block}\.(?:{self.names})"


@dataclass(frozen=True)
class Coverage:
    """How much of one part the patterns reach in a given model."""

    hit: tuple[str, ...]
    """Linear layers that the pattern selects."""
    total: tuple[str, ...]
    """All linear layers in the part's blocks."""

    @property
    def missed(self) -> tuple[str, ...]:
        """Linear layers of the part that the pattern does not select."""
        chosen = set(self.hit)
        return tuple(name for name in self.total if name not in chosen)

    @property
    def complete(self) -> bool:
        """Whether there is something to select and all of it is selected."""
        return bool(self.hit) and not self.missed


@dataclass(frozen=True)
class PatchGrid:
    """One grid of patches over the whole photo: `Qwen2VLImageProcessor` with Qwen3-VL's published settings."""

    patch_size: int = 16
    merge_size: int = 2
    min_pixels: int = 65_536
    max_pixels: int = 16_777_216

    def tokens(self, width: int, height: int) -> int | None:
        """Return how many tokens stand for a photo; None where the processor refuses it as too long."""
        if max(width, height) > 200 * min(width, height):
            return None
        unit = self.patch_size * self.merge_size
        return math.prod(_cells(width, height, unit, (self.min_pixels, self.max_pixels), least=0))


@dataclass(frozen=True)
class TileGrid:
    """Tiles for large photos, and the whole one small: `Lfm2VlImageProcessor` with its published settings."""

    patch_size: int = 16
    downsample_factor: int = 2
    min_tokens: int = 64
    max_tokens: int = 256
    tile_size: int = 512
    min_tiles: int = 2
    max_tiles: int = 10
    tolerance: float = 2.0

    def tokens(self, width: int, height: int) -> int:
        """Return how many tokens stand for a photo, its tiles and the small whole together."""
        unit = self.patch_size * self.downsample_factor
        budget = (self.min_tokens * unit**2, self.max_tokens * unit**2)
        whole = math.prod(_cells(width, height, unit, budget, least=1))
        sides = (max(self.patch_size, round(side / unit) * unit) for side in (width, height))
        if math.prod(sides) <= budget[1] * self.tolerance:
            return whole
        per_side = math.ceil(self.tile_size // self.patch_size / self.downsample_factor)
        return math.prod(self._layout(width, height)) * per_side**2 + whole

    def _layout(self, width: int, height: int) -> tuple[int, int]:
        """Return the columns and rows of tiles whose shape is nearest to the photo's."""
        sides = range(1, self.max_tiles + 1)
        grids = [(x, y) for x in sides for y in sides if self.min_tiles <= x * y <= self.max_tiles]
        best, smallest = (1, 1), math.inf
        for across, down in sorted(grids, key=math.prod):
            off = abs(width / height - across / down)
            # Of grids with the same shape, a larger one is taken where the photo fills half of it.
            if off < smallest or (off == smallest and width * height > 0.5 * self.tile_size**2 * across * down):
                best, smallest = (across, down), off
        return best


@dataclass(frozen=True)
class Family:
    """One architecture: its name, the `model_type`s of its configurations, its parts and its image tokens.

    Example:
        >>> family = FAMILIES["qwen3_vl"]
        >>> names = ["model.visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.proj"]
        >>> len(family.modules(names, ["vision"], ["attention"])["vision", "attention"].hit)
        2
    """

    name: str
    model_types: tuple[str, ...]
    layers: Mapping[Part, Layers]
    grid: PatchGrid | TileGrid

    def image_tokens(self, width: int, height: int) -> int | None:
        """Return how many tokens of the prompt stand for a photo, without the few that mark its ends and tiles.

        Args:
            width: Width in pixels, as the model gets it: see `vlm_tune.images.encode`.
            height: Height in pixels.

        Returns:
            The tokens, with the processor settings the models are published with; None where the processor
            refuses the photo.

        Example:
            >>> FAMILIES["qwen3_vl"].image_tokens(1024, 1024), FAMILIES["lfm2_vl"].image_tokens(1024, 1024)
            (1024, 1280)
        """
        return self.grid.tokens(width, height)

    def parts(self, regions: Collection[Region], kinds: Collection[Kind]) -> tuple[Part, ...]:
        """Return the parts that the regions and kinds name, leaving out those the architecture lacks.

        Raises:
            AdapterError: A region or a kind names nothing at all, e.g. `conv` where there is none.
        """
        chosen = tuple(part for part in self.layers if part[0] in regions and part[1] in kinds)
        for wanted, index in ((regions, 0), (kinds, 1)):
            empty = [name for name in wanted if name not in {part[index] for part in chosen}]
            if empty:
                known = "; ".join(f"{region}: {kind}" for region, kind in self.layers)
                raise AdapterError(
                    f"{' and '.join(empty)} would adapt nothing in {self.name} with regions "
                    f"{list(regions)} and kinds {list(kinds)}; it has {known}"
                )
        return chosen

    def target_modules(self, regions: Collection[Region], kinds: Collection[Kind]) -> str:
        """Return the one pattern that PEFT's `target_modules` takes for the regions and kinds.

        Raises:
            AdapterError: As `parts`.
        """
        return "|".join(self.layers[part].pattern for part in self.parts(regions, kinds))

    def modules(
        self, linear_names: Iterable[str], regions: Collection[Region], kinds: Collection[Kind]
    ) -> dict[Part, Coverage]:
        """Return what the patterns reach among the linear layers of a model.

        Args:
            linear_names: The names of all linear layers of the model; see `linear_names`.
            regions: The regions asked for.
            kinds: The kinds asked for.

        Raises:
            AdapterError: As `parts`.
        """
        names = tuple(linear_names)

        def matching(pattern: str) -> tuple[str, ...]:
            return tuple(name for name in names if re.fullmatch(pattern, name))

        return {
            part: Coverage(matching(self.layers[part].pattern), matching(rf"{self.layers[part].block}\..+"))
            for part in self.parts(regions, kinds)
        }

    def require(
        self, linear_names: Iterable[str], regions: Collection[Region], kinds: Collection[Kind]
    ) -> dict[Part, Coverage]:
        """Return the same as `modules`, and raise unless every part is reached completely.

        Raises:
            AdapterError: A part is reached nowhere or incompletely; the message lists the names that exist.
        """
        names = tuple(linear_names)
        coverage = self.modules(names, regions, kinds)
        for (region, kind), part in coverage.items():
            if not part.complete:
                shown = part.missed or _shapes(names)
                raise AdapterError(
                    f"{region} {kind} of {self.name}: {len(part.hit)} of {len(part.total)} linear layers "
                    f"would be adapted; the model has {', '.join(_shapes(shown))}. The installed "
                    "transformers names modules differently from what this vlm-tune knows: update one of them"
                )
        return coverage


_QWEN3_VL = Family(
    "qwen3_vl",
    ("qwen3_vl",),
    {
        ("vision", "attention"): Layers(r"model\.visual\.blocks\.\d+\.attn", "qkv|proj"),
        ("vision", "mlp"): Layers(r"model\.visual\.blocks\.\d+\.mlp", "linear_fc[12]"),
        ("projector", "attention"): Layers(r"model\.visual\.(?:merger|deepstack_merger_list\.\d+)", "linear_fc[12]"),
        ("language", "attention"): Layers(r"model\.language_model\.layers\.\d+\.self_attn", "[qkvo]_proj"),
        ("language", "mlp"): Layers(r"model\.language_model\.layers\.\d+\.mlp", "(?:gate|up|down)_proj"),
    },
    PatchGrid(),
)

_LFM2_VL = Family(
    "lfm2_vl",
    ("lfm2_vl",),
    {
        ("vision", "attention"): Layers(
            r"model\.vision_tower\.(?:vision_model\.)?encoder\.layers\.\d+\.self_attn", "(?:q|k|v|out)_proj"
        ),
        ("vision", "mlp"): Layers(r"model\.vision_tower\.(?:vision_model\.)?encoder\.layers\.\d+\.mlp", "fc[12]"),
        ("projector", "attention"): Layers(r"model\.multi_modal_projector", "linear_[12]"),
        ("language", "attention"): Layers(r"model\.language_model\.layers\.\d+\.self_attn", "(?:q|k|v|out)_proj"),
        ("language", "mlp"): Layers(r"model\.language_model\.layers\.\d+\.feed_forward", "w[123]"),
        ("language", "conv"): Layers(r"model\.language_model\.layers\.\d+\.conv", "(?:in|out)_proj"),
    },
    TileGrid(),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in (_QWEN3_VL, _LFM2_VL)}
"""The architectures whose layers are known, by name."""


def family_of(config: PreTrainedConfig) -> Family:
    """Return the family of a model configuration.

    Raises:
        ModelError: The architecture is not one of `FAMILIES`; such a model answers and is evaluated like any
            other, but it is not known which of its layers an adapter should touch.
    """
    model_type = str(getattr(config, "model_type", ""))
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    raise ModelError(
        f"the layers of architecture {model_type!r} are not known, so no adapter can be planned for it "
        f"(it can still be evaluated); known are {', '.join(FAMILIES)}. Explicit target_modules are not "
        "supported: add the architecture to vlm_tune/families.py"
    )


def linear_names(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all linear layers of a model, which may be on the meta device."""
    from torch import nn

    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear))


def _shapes(names: Iterable[str]) -> list[str]:
    # Layer numbers are noise in a message: model.layers.0.q_proj and model.layers.1.q_proj are one shape.
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))


def _cells(width: int, height: int, unit: int, budget: tuple[int, int], *, least: int) -> tuple[int, int]:
    """Return the columns and rows of `unit` pixels that a photo is resized to, its area inside the budget.

    The order of the operations is that of transformers' `smart_resize`, so that roundings agree.
    """
    across, down = (max(least, round(side / unit)) for side in (width, height))
    pixels = across * unit * down * unit
    low, high = budget
    if pixels > high:
        beta = math.sqrt((height * width) / high)
        return max(1, math.floor(width / beta / unit)), max(1, math.floor(height / beta / unit))
    if pixels < low:
        beta = math.sqrt(low / (height * width))
        return math.ceil(width * beta / unit), math.ceil(height * beta / unit)
    return across, down
