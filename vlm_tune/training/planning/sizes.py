"""The numbers that memory and time follow from, read from a model's module tree and a few photos."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vlm_tune.errors import TrainingError
from vlm_tune.families import Family, Region, linear_names
from vlm_tune.training.augmenting.drawing import mean_answers
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.blocks import Block, blocks_of, features_of, kinds_of
from vlm_tune.vlm.fused import ARCHITECTURES

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

    from vlm_tune.training.running.batches import Batches, EncodedExample

__all__ = ["Lengths", "Sizes", "lengths_of", "sizes_of"]

_NF4_BITS = 4.127
"""Bits of a weight in NF4, its scales included."""


@dataclass(frozen=True)
class Lengths:
    """What one example comes to, on average.

    Attributes:
        tokens: All of its tokens, image and answer included.
        image_tokens: Those that stand for the photo.
        answer_tokens: Those that are trained.
        patches: Image patches.
        padded_patches: The same as the processor pads them.
        patch_values: Values of one patch.
        pixels: Pixels of the photo as the processor gets it.
        examples: How many examples there are.
        differing: Chance that two of them have different labels.
    """

    tokens: float
    image_tokens: float
    answer_tokens: float
    patches: float
    padded_patches: float
    patch_values: int
    pixels: float
    examples: int
    differing: float = 1.0

    def shrunk(self, share: float) -> Lengths:
        """Return the lengths with photos of so much of their pixels."""
        return replace(
            self,
            tokens=self.tokens - (1 - share) * self.image_tokens,
            image_tokens=self.image_tokens * share,
            patches=self.patches * share,
            padded_patches=self.padded_patches * share,
            pixels=self.pixels * share,
        )


@dataclass(frozen=True)
class Sizes:
    """Everything that memory and time depend on.

    Attributes:
        family: Name of the architecture's family.
        vision: Layers of the vision tower.
        projector: Parts of the projector.
        language: Layers of the language model.
        parameters: Of the whole base model.
        trained: Of adapters and modules trained in full.
        regions: Regions that get adapters.
        rank: Rank of the adapters.
        vocabulary: Number of different tokens.
        features: Values kept for each image token when its photo is looked at only once.
        lengths: The training examples.
        fused: Whether training takes `vlm.fused` instead of the stock forward pass.
        bytes_per_value: 2 for bfloat16 and float16, 4 for float32.
        quantized: Whether the language model's linear layers are stored in NF4.
        wakes_vision: Whether the stock path's checkpointing makes a frozen vision tower keep its activations too:
            transformers lets the outputs of all input embeddings require gradients, and some towers have such.
        extra_outputs: Adapted outputs that are kept besides, as DoRA does.
        dropped: Whether dropout keeps a mask of every adapter's input.
        changed: Whether photos are changed, so that each is seen anew in every epoch.
        sequences: How often the language model reads a photo, on average: twice one that is mixed of two labels.
    """

    family: str
    vision: tuple[Block, ...]
    projector: tuple[Block, ...]
    language: tuple[Block, ...]
    parameters: int
    trained: int
    regions: tuple[Region, ...]
    rank: int
    vocabulary: int
    features: int
    lengths: Lengths
    fused: bool
    bytes_per_value: int = 2
    quantized: bool = False
    wakes_vision: bool = False
    extra_outputs: bool = False
    dropped: bool = False
    changed: bool = False
    sequences: float = 1.0

    @property
    def sees_once(self) -> bool:
        """Whether vision, projector and photos stay as they are, so that each photo is looked at once."""
        return self.fused and not self.changed and not {"vision", "projector"} & set(self.regions)

    @property
    def stored_photos(self) -> float:
        """Bytes of all photos: as the language model sees them if each is looked at once, else cut into patches.

        Those that are changed stay decoded in main memory.
        """
        if self.changed:
            return 0.0
        values = self.lengths.patches * self.lengths.patch_values
        if self.sees_once:
            values = self.lengths.image_tokens * self.features
        return self.lengths.examples * values * self.bytes_per_value

    def weight_bytes(self, bits: float | None = None) -> float:
        """Return the base model's bytes.

        Args:
            bits: Bits of each weight of the language model's linear layers; None as the model is.
        """
        if bits is None:
            bits = _NF4_BITS if self.quantized else 8 * self.bytes_per_value
        linear = sum(block.weights for block in self.language)
        return (self.parameters - linear) * self.bytes_per_value + linear * bits / 8


def sizes_of(
    model: PreTrainedModel,
    family: Family,
    config: TrainConfig,
    *,
    lengths: Lengths,
    trained: int,
    bytes_per_value: int = 2,
    quantized: bool = False,
) -> Sizes:
    """Return the sizes of a training run.

    Args:
        model: The base model, bare and not quantised; it may be on the meta device.
        family: Its family.
        config: The training configuration.
        lengths: The training examples; see `lengths_of`.
        trained: Parameters that are trained.
        bytes_per_value: Of its floating-point type.
        quantized: Whether the language model is stored in NF4.
    """
    towers = {region: blocks_of(model, family, region, config) for region in ("vision", "projector", "language")}
    text = model.config.get_text_config()
    return Sizes(
        family=family.name,
        **towers,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=trained,
        regions=config.regions,
        rank=config.r,
        vocabulary=int(text.vocab_size),
        features=features_of(model, family, int(text.hidden_size)),
        lengths=lengths,
        fused=config.fast
        and type(model).__name__ in ARCHITECTURES.values()
        and not (config.use_dora or config.lora_dropout or config.modules_to_save or quantized),
        bytes_per_value=bytes_per_value,
        quantized=quantized,
        wakes_vision="vision" in family.regions and _has_embeddings(model, family),
        extra_outputs=config.use_dora,
        dropped=config.lora_dropout > 0,
        changed=config.changes_photos,
        sequences=_sequences(config, lengths),
    )


def _sequences(config: TrainConfig, lengths: Lengths) -> float:
    return 1.0 if config.augment is None else 1.0 + lengths.differing * (mean_answers(config.augment) - 1.0)


def lengths_of(batches: Batches, config: PreTrainedConfig, *, sample: int = 8) -> Lengths:
    """Return the mean lengths of a few examples; the others are taken to be like them.

    Args:
        batches: The examples.
        config: The model's configuration.
        sample: How many are looked at, evenly drawn.

    Raises:
        ImageError: A photo cannot be read.
        TrainingError: The processor makes no tensor of it.
    """
    labels = Counter(example.label for example in batches.examples)
    places = range(0, len(batches), max(1, len(batches) // sample))[:sample]
    encoded = [batches[place] for place in places]

    def mean(values: Sequence[float]) -> float:
        return float(sum(values) / len(values))

    side = _patch_side(config)
    real, padded = zip(*(_patches(one, side) for one in encoded), strict=True)
    image_token = _image_token(config)
    seen = [int((one.tokens["input_ids"] == image_token).sum()) for one in encoded]
    return Lengths(
        tokens=mean([len(one.tokens["input_ids"]) for one in encoded]),
        image_tokens=mean(seen),
        answer_tokens=mean([one.num_trained for one in encoded]),
        patches=mean(real),
        padded_patches=mean(padded),
        patch_values=_patch_values(encoded[0], side),
        pixels=mean([math.prod(batches.photos.size(place)) for place in places]),
        examples=len(batches),
        differing=1.0 - sum((count / len(batches)) ** 2 for count in labels.values()),
    )


def _image_token(config: PreTrainedConfig) -> int:
    # Older configurations have another name for it.
    names = ("image_token_id", "image_token_index")
    return next((value for name in names if (value := getattr(config, name, None)) is not None), -1)


def _patch_side(config: PreTrainedConfig) -> int:
    """Return the side of a patch in pixels, which processors that leave the cutting to the tower do not show."""
    side = getattr(getattr(config, "vision_config", None), "patch_size", None) or 1
    return int(side[0] if isinstance(side, list | tuple) else side)


def _image_values(example: EncodedExample) -> Tensor:
    if "pixel_values" in example.pixels:
        return example.pixels["pixel_values"]
    # Some processors have other names; the photo is what is largest.
    values = [value for value in example.pixels.values() if value.is_floating_point()]
    if not values:
        found = ", ".join(example.pixels) or "nothing"
        raise TrainingError(
            f"the model's processor makes no tensor of a photo ({found}), so nothing can be trained on it; use the "
            "processor that belongs to the model"
        )
    return max(values, key=lambda value: value.numel())


def _patch_values(example: EncodedExample, side: int) -> int:
    values = _image_values(example)
    return int(values.shape[-1] if values.ndim <= 3 else values.shape[-3] * side**2)


def _patches(example: EncodedExample, side: int) -> tuple[int, int]:
    """Return an example's patches without and with padding."""
    values = _image_values(example)
    if values.ndim > 3:
        # Whole images or tiles, of shape (..., channels, height, width), which are never padded within one photo.
        *images, _, height, width = values.shape
        number = math.prod(images) * (height // side) * (width // side)
        return number, number
    padded = int(values.shape[0] if values.ndim == 2 else values.shape[0] * values.shape[1])
    mask = example.pixels.get("pixel_attention_mask")
    return padded if mask is None else int(mask.sum()), padded


def _has_embeddings(model: PreTrainedModel, family: Family) -> bool:
    """Return whether the vision tower names input embeddings, whose outputs checkpointing lets require gradients."""
    from transformers import PreTrainedModel as Base

    language = model.get_decoder()
    within = next(iter(family.modules(linear_names(model), ["vision"], kinds_of(family, "vision")).values())).total[0]
    for name, module in model.named_modules():
        inside = isinstance(module, Base) and within.startswith(f"{name}.")
        if inside and not any(part is language for part in module.modules()):
            try:
                return module.get_input_embeddings() is not None
            except NotImplementedError:
                return False
    return False
