"""Predicted memory is what was measured on an H200."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.training import Augment, TrainConfig
from vlm_tune.training.planning.memory import CONTEXT_BYTES, Layout, answering, peak, room_for_photos

LANGUAGE = {"regions": ("language",)}
STOCK: dict[str, Any] = {"fast": False}


@pytest.mark.parametrize(
    ("settings", "layout", "measured_gb"),
    [
        ({**LANGUAGE, **STOCK}, Layout(4), 42),
        ({**LANGUAGE, **STOCK}, Layout(8), 66),
        ({**LANGUAGE, **STOCK}, Layout(16), 114),
        ({**LANGUAGE, **STOCK}, Layout(4, 1.0), 20.6),
        (STOCK, Layout(8), 90),
        (STOCK, Layout(4, 1.0), 21.8),
        (LANGUAGE, Layout(8), 52.6),
        ({}, Layout(8), 67.8),
    ],
)
def test_qwen3_vl_8b_takes_what_was_measured(settings: dict[str, Any], layout: Layout, measured_gb: float) -> None:
    found = peak(damage(TrainConfig(**settings)), layout, photos=True)
    assert found.allocated / 1e9 == pytest.approx(measured_gb, rel=0.1)


@pytest.mark.parametrize(
    ("kinds", "layout", "measured_gb"),
    [
        (("attention",), Layout(4, 1.0), 7),
        (("attention",), Layout(16, 1.0), 8.5),
        (("attention",), Layout(32), 51),
        (("attention",), Layout(64), 95),
        (("attention", "mlp", "conv"), Layout(32), 58),
    ],
)
def test_lfm2_vl_3b_takes_what_was_measured(kinds: tuple[Any, ...], layout: Layout, measured_gb: float) -> None:
    sizes = cifar(TrainConfig(regions=("language",), kinds=kinds, fast=False))
    if not layout.checkpointed:
        # These runs came after ones with checkpointing in the same process, whose hooks stay on: the frozen tower
        # kept its activations too.
        sizes = replace(sizes, regions=("vision", "language"))
    assert peak(sizes, layout).allocated / 1e9 == pytest.approx(measured_gb, rel=0.1)


def test_the_parts_add_up() -> None:
    found = peak(damage(TrainConfig()), Layout(8), photos=True)
    assert found.weights == pytest.approx(17.53e9, rel=1e-3)
    assert found.adapters == pytest.approx(18 * 77.9e6)
    assert found.allocated == found.weights + found.adapters + found.activations + found.photos
    assert found.needed > found.allocated + CONTEXT_BYTES


def test_photos_that_are_looked_at_once_are_kept_as_features_and_others_as_patches() -> None:
    frozen, adapted = damage(TrainConfig(**LANGUAGE)), damage(TrainConfig())
    # 713 tokens, wanted at four layers, 4096 values each; or 2852 patches of 1536.
    assert peak(frozen, Layout(1), photos=True).photos == pytest.approx(319 * 713 * 4 * 4096 * 2)
    assert peak(adapted, Layout(1), photos=True).photos == pytest.approx(319 * 2852 * 1536 * 2)
    assert peak(damage(TrainConfig(**STOCK)), Layout(1), photos=True).photos == 0


def test_four_bits_take_the_weights_of_the_language_model_down() -> None:
    sizes = replace(damage(TrainConfig(**LANGUAGE)), quantized=True, fused=False)
    # 6.946 of 8.767 billion parameters in 4.127 bits.
    assert peak(sizes, Layout(1)).weights == pytest.approx(7.2e9, rel=0.02)


def test_dora_and_dropout_take_more() -> None:
    plain = peak(damage(TrainConfig(**STOCK)), Layout(4)).activations
    assert peak(damage(TrainConfig(use_dora=True)), Layout(4)).activations > 1.1 * plain
    assert peak(damage(TrainConfig(lora_dropout=0.1)), Layout(4)).activations > 1.02 * plain


def test_layers_before_the_first_adapter_keep_nothing() -> None:
    sizes = cifar(TrainConfig(regions=("language",)))
    first = replace(sizes, language=(sizes.language[2], *sizes.language[:2], *sizes.language[3:]))
    assert peak(first, Layout(8)).activations > peak(sizes, Layout(8)).activations


def test_photos_get_what_training_leaves() -> None:
    sizes = damage(TrainConfig())
    training = 1.04 * peak(sizes, Layout(8)).beside_weights
    assert room_for_photos(sizes, Layout(8), free_bytes=training + 5e9) == pytest.approx(5e9)
    assert room_for_photos(sizes, Layout(8), free_bytes=1e9) == 0


def test_answering_takes_little_but_the_weights() -> None:
    sizes = damage(TrainConfig())
    whole, eight, four = (answering(sizes, bits) / 1e9 for bits in (16, 8, 4.5))
    assert 18.2 < whole < 19.5
    assert eight == pytest.approx(whole - 6.946, rel=0.01)
    assert four < eight


def test_photos_that_are_changed_are_not_kept_on_the_gpu() -> None:
    sizes = damage(TrainConfig(augment=Augment(flip=True)))
    assert damage(TrainConfig()).stored_photos > 0
    assert sizes.stored_photos == 0 and peak(sizes, Layout(8), photos=True).photos == 0


def test_photos_that_are_mixed_of_two_labels_are_read_twice() -> None:
    plain, mixed = (damage(TrainConfig(**LANGUAGE, augment=one)) for one in (None, Augment(cutmix=1.0)))
    assert peak(mixed, Layout(4)).activations == pytest.approx(peak(plain, Layout(8)).activations, rel=0.01)
    both = [damage(TrainConfig(augment=one)) for one in (None, Augment(cutmix=1.0))]
    # The vision tower's part is not doubled.
    four, eight = (peak(both[0], Layout(number)).activations for number in (4, 8))
    assert four < peak(both[1], Layout(4)).activations < eight
