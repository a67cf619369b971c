"""One architecture: where its linear layers are, and the tokens it spends on a photo."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.families.grids import Grid
from vlm_tune.families.layers import Coverage, Kind, Layers, Part, Region

__all__ = ["Family", "shapes"]


@dataclass(frozen=True)
class Family:
    """One architecture: its name, the `model_type`s of its configurations, its parts and its image tokens.

    Examples:
        >>> from vlm_tune.families import FAMILIES
        >>> family = FAMILIES["qwen3_vl"]
        >>> names = ["model.visual.blocks.0.attn.qkv", "model.visual.blocks.0.attn.proj"]
        >>> len(family.modules(names, ["vision"], ["attention"])["vision", "attention"].hit)
        2
    """

    name: str
    """As transformers calls it, e.g. `qwen3_vl`."""
    model_types: tuple[str, ...]
    """The `model_type`s of its configurations."""
    layers: Mapping[Part, Layers]
    """Its parts."""
    grid: Grid | None = None
    """How it counts image tokens; None where its models are published with different settings, or not known."""
    registered: bool = True
    """Whether it is one of `FAMILIES`; otherwise its parts were found by looking at the model."""

    @property
    def regions(self) -> tuple[Region, ...]:
        """The regions that have linear layers."""
        return tuple(dict.fromkeys(region for region, _ in self.layers))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of linear layer that there are."""
        return tuple(dict.fromkeys(kind for _, kind in self.layers))

    def image_tokens(self, width: int, height: int) -> int | None:
        """Return how many tokens of the prompt stand for a photo, without the few that mark its ends and tiles.

        Args:
            width: Width in pixels, as the model gets it: see `vlm_tune.images.encode`.
            height: Height in pixels.

        Returns:
            The tokens, with the processor settings the models are published with; None where the processor
            refuses the photo.

        Raises:
            ModelError: The family has no `grid`.

        Examples:
            >>> from vlm_tune.families import FAMILIES
            >>> FAMILIES["qwen3_vl"].image_tokens(1024, 1024), FAMILIES["lfm2_vl"].image_tokens(1024, 1024)
            (1024, 1280)
        """
        if self.grid is None:
            raise ModelError(
                f"how many tokens {self.name} spends on a photo depends on the model's own settings; "
                "its processor counts them"
            )
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
                    f"{list(regions)} and kinds {list(kinds)}; it has {known}. Leave out what is not there"
                )
        return chosen

    def part_of(self, module: str) -> Part | None:
        """Return the part that a linear layer belongs to, by its full name; None for layers outside all parts."""
        return next((part for part, layers in self.layers.items() if re.fullmatch(layers.pattern, module)), None)

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
            part: Coverage(matching(self.layers[part].pattern), matching(self.layers[part].whole))
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
                shown = part.missed or names
                raise AdapterError(
                    f"{region} {kind} of {self.name}: {len(part.hit)} of {len(part.total)} linear layers "
                    f"would be adapted; the model has {', '.join(shapes(shown))}. The installed "
                    "transformers names modules differently from what this vlm-tune knows: update one of them"
                )
        return coverage

    def left_out(self, linear_names: Iterable[str]) -> tuple[str, ...]:
        """Return the linear layers that belong to no part: embeddings of patches, pooling and output heads."""
        patterns = [layers.whole for layers in self.layers.values()]
        return tuple(name for name in linear_names if not any(re.fullmatch(pattern, name) for pattern in patterns))


def shapes(names: Iterable[str]) -> list[str]:
    """Return the names without layer numbers, each once: `layers.0.q_proj` and `layers.1.q_proj` are one."""
    return list(dict.fromkeys(re.sub(r"\.\d+(?=\.)", ".*", name) for name in names))
