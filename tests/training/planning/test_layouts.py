"""The layout that is chosen fits, and is the fastest on the card."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.planning.dimensions import cifar, damage
from vlm_tune.errors import TrainingError
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.layouts import choose_layout
from vlm_tune.training.planning.memory import CONTEXT_BYTES, Layout, peak

STOCK: dict[str, Any] = {"fast": False}
H200, A10G = 777e12, 63e12


@pytest.mark.parametrize(
    ("settings", "free_gb", "layout"),
    [
        ({"batch_size": 8}, 60, Layout(8)),
        ({"batch_size": 8}, 40, Layout(4)),
        ({"batch_size": 12}, 40, Layout(6)),
        ({"batch_size": 8, "micro_batch_size": 2}, 120, Layout(2)),
        ({"batch_size": 8, "gradient_checkpointing": True}, 120, Layout(8, 1.0)),
        ({"batch_size": 8, **STOCK}, 20, Layout(8, 1.0)),
        ({"batch_size": 8, **STOCK}, 9, Layout(8, 1.0)),
    ],
)
def test_the_largest_micro_batch_that_fits(settings: dict[str, Any], free_gb: float, layout: Layout) -> None:
    config = TrainConfig(**settings)
    assert choose_layout(damage(config), config, flops=H200, free_bytes=free_gb * 1e9) == layout


def test_no_more_layers_are_recomputed_than_memory_asks_for() -> None:
    config = TrainConfig(batch_size=8)
    sizes = damage(config)
    rooms = [free * 1e9 for free in (7.5, 6, 5, 4, 3)]
    shares = [choose_layout(sizes, config, flops=A10G, free_bytes=room).checkpointed for room in rooms]
    assert shares == sorted(shares)
    assert 0 < shares[1] < shares[-1] < 1
    for free, share in ((6, shares[1]), (4, shares[3])):
        assert 1.04 * peak(sizes, Layout(1, share)).beside_weights <= free * 1e9
        assert 1.04 * peak(sizes, Layout(1, share - 1 / 36)).beside_weights > free * 1e9


def test_no_pass_has_more_examples_than_there_are() -> None:
    config = TrainConfig(batch_size=64)
    assert choose_layout(damage(config, examples=10), config, flops=H200, free_bytes=120e9) == Layout(10)


def test_gpus_share_the_batch() -> None:
    config = TrainConfig(batch_size=8)
    assert choose_layout(damage(config), config, flops=H200, free_bytes=120e9, world_size=4) == Layout(2)
    # More GPUs than examples: each has at most one.
    assert choose_layout(damage(config), config, flops=H200, free_bytes=120e9, world_size=16) == Layout(1)


def test_small_photos_go_through_together_so_that_the_gpu_is_busy() -> None:
    config = TrainConfig(regions=("language",), batch_size=64)
    sizes = cifar(config)
    assert choose_layout(sizes, config, flops=H200, free_bytes=100e9) == Layout(64)
    # One at a time without recomputation would fit too, and waits for the processor.
    assert choose_layout(sizes, config, flops=H200, free_bytes=4e9).micro_batch_size > 1


def test_a_fast_gpu_recomputes_rather_than_waits_and_a_slow_one_has_the_time() -> None:
    config = TrainConfig(regions=("language",), batch_size=4)
    sizes, room = damage(config), 21 * 2**30 - CONTEXT_BYTES - 17.5e9
    fast, slow = (choose_layout(sizes, config, free_bytes=room, flops=flops) for flops in (H200, A10G))
    assert fast.micro_batch_size == 4 and fast.checkpointed > 0
    assert slow.micro_batch_size == 1 and slow.checkpointed < fast.checkpointed


def test_what_would_fit_is_named() -> None:
    config = TrainConfig(batch_size=8)
    with pytest.raises(TrainingError) as raised:
        choose_layout(damage(config), config, flops=H200, free_bytes=2e9)
    for words in ("2.0 GB are free", "max_pixels=375000", 'quantization="nf4"', "a GPU with 21 GB"):
        assert words in str(raised.value)
    fixed = TrainConfig(batch_size=8, micro_batch_size=8)
    with pytest.raises(TrainingError, match="leave micro_batch_size"):
        choose_layout(damage(fixed), fixed, flops=H200, free_bytes=3e9)
