"""Every GPU with a price has figures, and names as drivers give them are found."""

from __future__ import annotations

import pytest

from vlm_tune.cost import card_of, cards, gpu_prices


def test_every_gpu_with_a_price_has_figures_with_a_source() -> None:
    assert {price.gpu for price in gpu_prices()} <= {card.gpu for card in cards()}
    assert all(card.source for card in cards())


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A10G", "A10G"),
        ("l4", "L4"),
        ("NVIDIA L40S", None),
        ("NVIDIA A10", None),
    ],
)
def test_a_card_is_found_by_its_name(name: str, gpu: str | None) -> None:
    card = card_of(name)
    assert (card and card.gpu) == gpu


def test_rates_are_measured_or_have_the_measured_share_of_the_datasheet() -> None:
    h200, h100 = card_of("H200"), card_of("H100")
    assert h200 is not None
    assert h100 is not None
    assert h200.matmul_flops == 777e12
    assert h100.matmul_flops == pytest.approx(777e12)
    assert all(card.matmul_flops < card.bf16_tflops * 1e12 for card in cards())
