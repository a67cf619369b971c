from dataclasses import replace
from typing import Any

import pytest

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.training import Augment, TrainConfig
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


def test_photos_that_are_changed_are_looked_at_in_every_epoch() -> None:
    still, changed = (
        work(damage(TrainConfig(**LANGUAGE, augment=augment)), Layout(1)) for augment in (None, Augment(flip=True))
    )
    assert changed.once == 0
    assert changed.each == still.each + still.once
    nothing = work(damage(TrainConfig(**LANGUAGE, augment=Augment())), Layout(1))
    assert nothing == still


def test_a_photo_mixed_of_two_labels_is_read_twice_and_seen_once() -> None:
    augment = Augment(mixup=0.2, mix_share=0.5)
    plain, mixed = (damage(TrainConfig(**LANGUAGE, augment=one)) for one in (Augment(flip=True), augment))
    seen = work(damage(TrainConfig(**LANGUAGE)), Layout(1)).once
    # Half of them are mixed, and two in three of those with another label.
    mixed = replace(mixed, lengths=replace(mixed.lengths, differing=2 / 3), sequences=1 + 0.5 * 2 / 3)
    read = work(plain, Layout(1)).each - seen
    assert work(mixed, Layout(1)).each == pytest.approx(seen + read * 4 / 3)
    stock = replace(damage(TrainConfig(fast=False, augment=Augment(mixup=0.2))), sequences=2.0)
    assert work(stock, Layout(1)).each == pytest.approx(2 * work(replace(stock, sequences=1.0), Layout(1)).each)
