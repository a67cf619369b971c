"""What is where in each model architecture: which linear layers are vision, projector and language.

The patterns are full matches on module names of the transformers classes, checked in the tests against the
real module trees. The projector has no attention of its own; its linear layers count as its attention, so
that the kind `attention` reaches every part of the model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlm_tune.errors import AdapterError, ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig

__all__ = ["FAMILIES", "Coverage", "Family", "Kind", "Layers", "Part", "Region", "family_of", "linear_names"]

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
class Family:
    """One architecture: its name, the `model_type`s of its configurations and its parts.

    Example:
        >>> family = FAMILIES["qwen3_vl"]
        >>> names = ["model.visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.proj"]
        >>> len(family.modules(names, ["vision"], ["attention"])["vision", "attention"].hit)
        2
    """

    name: str
    model_types: tuple[str, ...]
    layers: Mapping[Part, Layers]

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
