from typing import Any

import pytest

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.cost import card_of, gpu_prices
from vlm_tune.errors import ModelError
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.estimate import Device, device_of, estimate, pick_device
from vlm_tune.training.planning.memory import Layout

LANGUAGE: dict[str, Any] = {"regions": ("language",)}


def device(name: str) -> Device:
    card = card_of(name)
    assert card is not None
    return device_of(card, next(price for price in gpu_prices() if price.gpu == name))


@pytest.mark.parametrize(
    ("settings", "measured_s"),
    [
        # Whole jobs of 957 samples from JPEG bytes: measured with the prototype of the fused path.
        ({**LANGUAGE, "batch_size": 8}, 43.7),
        ({"batch_size": 8}, 66.2),
    ],
)
def test_time_of_the_fused_path_is_near_what_was_measured(settings: dict[str, Any], measured_s: float) -> None:
    found = estimate(damage(TrainConfig(**settings)), TrainConfig(**settings), device("H200"))
    assert found.seconds == pytest.approx(measured_s, rel=0.1)


@pytest.mark.parametrize(
    ("settings", "measured_s"),
    [
        ({**LANGUAGE, "batch_size": 4}, 130),
        ({**LANGUAGE, "batch_size": 8}, 89),
        ({"batch_size": 8}, 117),
        ({**LANGUAGE, "batch_size": 4, "gradient_checkpointing": True}, 160),
    ],
)
def test_time_of_the_stock_path_is_of_the_right_size(settings: dict[str, Any], measured_s: float) -> None:
    config = TrainConfig(**settings, fast=False)
    assert estimate(damage(config), config, device("H200")).seconds == pytest.approx(measured_s, rel=0.4)


def test_the_parts_of_the_memory_add_up() -> None:
    found = estimate(damage(TrainConfig()), TrainConfig(), device("H200"))
    parts = (found.weights_gb, found.adapter_gb, found.activations_gb, found.photos_gb, found.overhead_gb)
    assert found.memory_gb == pytest.approx(sum(parts))
    assert found.fits
    assert found.layout == Layout(4)


def test_photos_stay_on_the_gpu_only_where_training_leaves_room() -> None:
    config = TrainConfig(**LANGUAGE)
    assert estimate(damage(config), config, device("H200")).photos_gb == pytest.approx(7.45, rel=0.01)
    assert estimate(damage(config), config, device("A10G")).photos_gb == 0


def test_a_small_card_recomputes_and_fits() -> None:
    found = estimate(damage(TrainConfig()), TrainConfig(), device("A10G"))
    assert found.fits
    assert found.memory_gb <= 23.6
    assert 0 < found.layout.checkpointed < 1


def test_dollars_are_time_times_a_dated_rent() -> None:
    found = estimate(damage(TrainConfig()), TrainConfig(), device("H200"))
    assert found.cost is not None
    assert found.rent is not None
    assert found.cost.usd == pytest.approx(found.seconds / 3600 * found.rent.usd_per_hour)
    assert "2026" in found.cost.basis
    assert found.rent.provider in found.cost.basis


def test_what_does_not_fit_is_said_with_what_would() -> None:
    config = TrainConfig(batch_size=32, micro_batch_size=32, gradient_checkpointing=False)
    found = estimate(damage(config), config, device("H100"))
    assert not found.fits
    assert found.memory_gb > found.device_gb
    assert "leave micro_batch_size and gradient_checkpointing to the plan" in found.advice


def test_the_cifar_job_is_minutes_not_hours() -> None:
    config = TrainConfig(**LANGUAGE, batch_size=64)
    assert 200 < estimate(cifar(config), config, device("H200")).seconds < 900


def test_pick_device() -> None:
    chosen, reason = pick_device("auto", 8_000_000_000, name="h100")
    assert (chosen.name, reason) == ("NVIDIA H100", "asked for")
    assert chosen.rent is not None
    assert pick_device("cpu", 8_000_000_000)[0].name.startswith("CPU")
    processor = pick_device("cpu", 1)[0]
    assert not processor.is_gpu
    assert processor.rent is None
    with pytest.raises(ModelError, match=r"known are .*H200"):
        pick_device("auto", 1, name="abacus")


def test_an_own_processor_costs_nothing_and_has_no_driver() -> None:
    config = TrainConfig(batch_size=1)
    found = estimate(damage(config), config, Device("CPU", 1e12, 64, is_gpu=False))
    assert found.cost is None
    assert found.photos_gb == 0
    assert found.overhead_gb < 0.6
