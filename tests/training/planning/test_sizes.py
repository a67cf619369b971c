from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    Gemma3Config,
    Gemma3ImageProcessor,
    GotOcr2ImageProcessor,
    InternVLConfig,
    PreTrainedConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
)

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.families import family_in
from vlm_tune.training import Augment, TrainConfig
from vlm_tune.training.planning.sizes import lengths_of, sizes_of
from vlm_tune.training.running.batches import Batches, EncodedExample
from vlm_tune.training.running.photos import Photos
from vlm_tune.vlm import VLM


def test_the_path_is_the_one_that_training_takes() -> None:
    assert damage(TrainConfig()).fused
    for settings in ({"fast": False}, {"use_dora": True}, {"lora_dropout": 0.1}, {"modules_to_save": ("lm_head",)}):
        assert not damage(TrainConfig.model_validate(settings)).fused


def test_checkpointing_wakes_siglip_but_not_the_tower_of_qwen() -> None:
    assert cifar(TrainConfig()).wakes_vision
    assert not damage(TrainConfig()).wakes_vision


def test_lengths_are_those_of_the_batches(tiny_vlm: Path, colours: Dataset) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    batches = Batches(colours.examples, processor=processor, task=colours.task, dtype=torch.float32)
    config = VLM(tiny_vlm).config
    found = lengths_of(batches, config)
    encoded = batches[0]
    assert found.examples == 24
    assert found.pixels == 64 * 48
    assert found.image_tokens == (encoded.tokens["input_ids"] == config.image_token_id).sum()
    assert found.patches <= found.padded_patches
    assert found.patches == 4 * found.image_tokens
    assert found.patch_values == encoded.pixels["pixel_values"].shape[-1]
    assert found.differing == pytest.approx(2 / 3)
    half = found.shrunk(0.5)
    assert found.tokens - half.tokens == half.image_tokens == found.image_tokens / 2


class OnePhoto(Batches):
    """A batch of what a processor alone has made of one photo."""

    def __init__(self, data: Dataset, pixels: dict[str, torch.Tensor]) -> None:
        self.examples, self.task = data.examples[:1], data.task
        self.photos = Photos(self.examples, max_pixels=data.task.max_pixels)
        self._one = EncodedExample(tokens={"input_ids": torch.tensor([7, 1, 2])}, pixels=pixels, num_trained=2)

    def __getitem__(self, index: int) -> EncodedExample:
        return self._one


@pytest.mark.parametrize(
    ("processor", "config", "patches"),
    [
        (
            Gemma3ImageProcessor(size={"height": 896, "width": 896}),
            Gemma3Config(vision_config={"patch_size": 14}),
            64**2,
        ),
        # Twelve tiles and the whole photo, of 364 x 364 pixels each.
        (SmolVLMImageProcessor(), SmolVLMConfig(vision_config={"patch_size": 14}), 13 * 26**2),
        (GotOcr2ImageProcessor(size={"height": 448, "width": 448}), InternVLConfig(), 32**2),
    ],
    ids=["gemma3", "smolvlm", "internvl"],
)
def test_where_the_tower_cuts_the_photo_its_patches_are_counted(
    processor: Any, config: PreTrainedConfig, patches: int, colours: Dataset
) -> None:
    made = processor(images=[[Image.new("RGB", (1000, 750))]], return_tensors="pt")
    pixels = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
    assert pixels["pixel_values"].ndim > 3
    found = lengths_of(OnePhoto(colours, pixels), config)
    assert (found.patches, found.padded_patches) == (patches, patches)
    assert found.patch_values == 3 * 14**2


def test_a_tiny_model_has_sizes_too(tiny_vlm: Path, colours: Dataset) -> None:
    base = VLM(tiny_vlm)
    skeleton = base.skeleton()
    batches = Batches(
        colours.examples, processor=AutoProcessor.from_pretrained(tiny_vlm), task=colours.task, dtype=torch.float32
    )
    lengths = lengths_of(batches, base.config)
    sizes = sizes_of(skeleton, family_in(skeleton), TrainConfig(r=4), lengths=lengths, trained=100, bytes_per_value=4)
    assert sizes.weight_bytes() == 4 * sizes.parameters
    assert sizes.sequences == 1.0 and not sizes.changed
    mixed = TrainConfig(augment=Augment(mixup=1.0, mix_share=0.5))
    sizes = sizes_of(skeleton, family_in(skeleton), mixed, lengths=lengths, trained=100)
    # Half of them are mixed, one in a hundred of those so little that it is not seen, two in three with another label.
    assert sizes.sequences == pytest.approx(1 + 0.99 / 3) and sizes.changed
    assert sizes.language[0].width == 32


def test_a_photo_under_another_name_is_counted_and_one_that_is_nowhere_named(
    tiny_qwen3_vl: Path, colours: Dataset
) -> None:
    config = VLM(tiny_qwen3_vl).config
    usual = lengths_of(OnePhoto(colours, {"pixel_values": torch.zeros(16, 24)}), config)
    other = lengths_of(OnePhoto(colours, {"flattened_patches": torch.zeros(16, 24), "scale": torch.ones(1)}), config)
    assert other == usual
    with pytest.raises(TrainingError, match=r"no tensor of a photo \(sizes\)"):
        lengths_of(OnePhoto(colours, {"sizes": torch.ones(2, dtype=torch.int64)}), config)
