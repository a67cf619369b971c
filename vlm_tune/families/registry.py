"""The architectures whose layers are known.

The patterns are full matches on module names of the transformers classes, checked in the tests against the
real module trees. The projector has no attention of its own; its linear layers count as its attention, so
that the kind `attention` reaches every part of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vlm_tune.errors import ModelError
from vlm_tune.families.family import Family
from vlm_tune.families.grids import CropGrid, FixedGrid, PatchGrid, PooledGrid, TileGrid
from vlm_tune.families.layers import Layers, Part

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["FAMILIES", "family_of"]


def _layers(block: str, names: str) -> Layers:
    """Layers of these names in a block; all that is directly in the block must be reached."""
    return Layers(rf"{block}\.(?:{names})", rf"{block}\.[^.]+")


def _decoder(root: str) -> dict[Part, Layers]:
    """The blocks that Llama brought and most language models kept."""
    return {
        ("language", "attention"): _layers(rf"{root}\.layers\.\d+\.self_attn", "[qkvo]_proj"),
        ("language", "mlp"): _layers(rf"{root}\.layers\.\d+\.mlp", "(?:gate|up|down)_proj"),
    }


def _siglip(root: str) -> dict[Part, Layers]:
    """SigLIP's blocks; versions of transformers differ in whether a `vision_model` holds them."""
    blocks = rf"{root}\.(?:vision_model\.)?encoder\.layers\.\d+"
    return {
        ("vision", "attention"): _layers(rf"{blocks}\.self_attn", "(?:q|k|v|out)_proj"),
        ("vision", "mlp"): _layers(rf"{blocks}\.mlp", "fc[12]"),
    }


_QWEN3_VL = Family(
    "qwen3_vl",
    ("qwen3_vl",),
    {
        ("vision", "attention"): _layers(r"model\.visual\.blocks\.\d+\.attn", "qkv|proj"),
        ("vision", "mlp"): _layers(r"model\.visual\.blocks\.\d+\.mlp", "linear_fc[12]"),
        ("projector", "attention"): _layers(r"model\.visual\.(?:merger|deepstack_merger_list\.\d+)", "linear_fc[12]"),
        **_decoder(r"model\.language_model"),
    },
    PatchGrid(),
)

_QWEN2_5_VL = Family(
    "qwen2_5_vl",
    ("qwen2_5_vl",),
    {
        ("vision", "attention"): _layers(r"model\.visual\.blocks\.\d+\.attn", "qkv|proj"),
        ("vision", "mlp"): _layers(r"model\.visual\.blocks\.\d+\.mlp", "(?:gate|up|down)_proj"),
        ("projector", "attention"): _layers(r"model\.visual\.merger\.mlp", "[02]"),
        **_decoder(r"model\.language_model"),
    },
    PatchGrid(patch_size=14, min_pixels=3_136, max_pixels=12_845_056),
)

_LFM2_VL = Family(
    "lfm2_vl",
    ("lfm2_vl",),
    {
        **_siglip(r"model\.vision_tower"),
        ("projector", "attention"): _layers(r"model\.multi_modal_projector", "linear_[12]"),
        ("language", "attention"): _layers(r"model\.language_model\.layers\.\d+\.self_attn", "(?:q|k|v|out)_proj"),
        ("language", "mlp"): _layers(r"model\.language_model\.layers\.\d+\.feed_forward", "w[123]"),
        ("language", "conv"): _layers(r"model\.language_model\.layers\.\d+\.conv", "(?:in|out)_proj"),
    },
    TileGrid(),
)

# Its models cut photos into tiles of 364, 384 or 512 pixels, for 169, 81 or 64 tokens: no grid fits them all.
_SMOLVLM = Family(
    "smolvlm",
    ("smolvlm", "idefics3"),
    {
        **_siglip(r"model\.vision_model"),
        ("projector", "attention"): _layers(r"model\.connector\.modality_projection", "proj"),
        **_decoder(r"model\.text_model"),
    },
)

# Its projector is a bare matrix, which an adapter cannot take; modules_to_save can.
_GEMMA3 = Family(
    "gemma3",
    ("gemma3",),
    {**_siglip(r"model\.vision_tower"), **_decoder(r"model\.language_model")},
    FixedGrid(),
)

_GEMMA4 = Family(
    "gemma4",
    ("gemma4",),
    {
        # Each linear layer of the vision tower is held by one that clips its inputs and outputs.
        ("vision", "attention"): _layers(
            r"model\.vision_tower\.encoder\.layers\.\d+\.self_attn\.[qkvo]_proj", "linear"
        ),
        ("vision", "mlp"): _layers(r"model\.vision_tower\.encoder\.layers\.\d+\.mlp\.(?:gate|up|down)_proj", "linear"),
        ("projector", "attention"): _layers(r"model\.embed_vision", "embedding_projection"),
        **_decoder(r"model\.language_model"),
        # Small models feed a second embedding into every layer, through two linear layers beside the mlp.
        ("language", "mlp"): _layers(
            r"model\.language_model\.layers\.\d+(?:\.mlp)?",
            r"(?:gate|up|down)_proj|per_layer_(?:input_gate|projection)",
        ),
    },
    PooledGrid(),
)

_INTERNVL = Family(
    "internvl",
    ("internvl",),
    {
        ("vision", "attention"): _layers(
            r"model\.vision_tower\.encoder\.layer\.\d+\.attention", "[qkv]_proj|projection_layer"
        ),
        ("vision", "mlp"): _layers(r"model\.vision_tower\.encoder\.layer\.\d+\.mlp", "fc[12]"),
        ("projector", "attention"): _layers(r"model\.multi_modal_projector", "linear_[12]"),
        **_decoder(r"model\.language_model"),
    },
    CropGrid(),
)

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (_QWEN3_VL, _QWEN2_5_VL, _LFM2_VL, _SMOLVLM, _GEMMA3, _GEMMA4, _INTERNVL)
}
"""The architectures whose layers are known, by name."""


def family_of(config: PreTrainedConfig) -> Family:
    """Return the registered family of a model configuration; `family_in` takes a model, and knows every one.

    Raises:
        ModelError: The architecture is not one of `FAMILIES`.
    """
    model_type = str(getattr(config, "model_type", ""))
    for family in FAMILIES.values():
        if model_type in family.model_types:
            return family
    raise ModelError(
        f"architecture {model_type!r} is not in the registry, which has {', '.join(FAMILIES)}; "
        "family_in(model) finds the layers of others by looking"
    )
