from typing import Any

import pytest

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.memory import Layout
from vlm_tune.training.planning.work import efficiency, seconds_per_pass, work

LANGUAGE: dict[str, Any] = {"regions": ("language",)}


@pytest.mark.parametrize(
    ("settings", "tflop"),
    [
        ({**LANGUAGE, "fast": False}, 27.6),
        ({"fast": False}, 32.7),
        (LANGUAGE, 24.0),
        ({}, 32.7),
    ],
)
def test_work_is_the_published_arithmetic(settings: dict[str, Any], tflop: float) -> None:
    assert work(damage(TrainConfig(**settings)), Layout(1)).each / 1e12 == pytest.approx(tflop, rel=0.02)


def test_frozen_eyes_look_once() -> None:
    once = work(damage(TrainConfig(**LANGUAGE)), Layout(1)).once
    assert once / 1e12 == pytest.approx(3.6, rel=0.02)
    assert work(damage(TrainConfig()), Layout(1)).once == 0


def test_recomputing_is_one_more_forward_pass_of_what_is_recomputed() -> None:
    sizes = damage(TrainConfig(**LANGUAGE))
    none, half, all_of_it = (work(sizes, Layout(1, share)) for share in (0.0, 0.5, 1.0))
    assert none.again == 0
    assert 2 * half.again == all_of_it.again
    # Of the language model: two passes become three.
    assert all_of_it.each == pytest.approx(1.5 * none.each, rel=0.02)


def test_the_stock_path_computes_the_padding_of_small_photos_too() -> None:
    padded = work(cifar(TrainConfig(**LANGUAGE, fast=False)), Layout(1)).each
    real = work(cifar(TrainConfig(**LANGUAGE)), Layout(1))
    assert padded > real.each + 3 * real.once


def test_a_pass_is_never_shorter_than_launching_it() -> None:
    sizes = cifar(TrainConfig(**LANGUAGE))
    one, two = (seconds_per_pass(sizes, Layout(number), 777e12) for number in (1, 2))
    assert one == two
    assert seconds_per_pass(sizes, Layout(64), 777e12) > 2 * one


def test_the_fused_path_is_the_more_efficient_one() -> None:
    assert efficiency(damage(TrainConfig())) > 2 * efficiency(damage(TrainConfig(fast=False)))
