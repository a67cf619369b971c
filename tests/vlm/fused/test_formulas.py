"""The formulas are those of PyTorch and transformers, written for packed tokens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

from vlm_tune.vlm.fused import formulas

EPS = 1e-6


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_rms_norm_is_pytorchs_and_keeps_the_type(draw: torch.Generator) -> None:
    x, weight = torch.randn(5, 12, generator=draw), torch.randn(12, generator=draw)
    torch.testing.assert_close(formulas.rms_norm(x, weight, EPS), functional.rms_norm(x, (12,), weight, EPS))
    assert formulas.rms_norm(x.bfloat16(), weight, EPS).dtype == torch.bfloat16


def test_swiglu_gates_the_second_half_by_the_first(draw: torch.Generator) -> None:
    gate, up = torch.randn(2, 5, 6, generator=draw)
    torch.testing.assert_close(formulas.swiglu(torch.cat([gate, up], dim=1)), functional.silu(gate) * up)


@pytest.mark.parametrize("normed", [False, True])
def test_heads_are_cut_normed_and_turned(draw: torch.Generator, normed: bool) -> None:
    qkv, weight = torch.randn(5, (3 + 1 + 1) * 8, generator=draw), torch.randn(8, generator=draw)
    angles = torch.randn(5, 4, generator=draw).repeat(1, 2)
    weights = (weight, None) if normed else (None, None)
    query, key, value = formulas.heads(qkv, angles.cos(), angles.sin(), counts=(3, 1, 1), weights=weights, eps=EPS)
    plain = qkv.view(5, 5, 8)
    before = functional.rms_norm(plain[:, :3], (8,), weight, EPS) if normed else plain[:, :3]
    expected = apply_rotary_pos_emb(
        before[None], plain[None, :, 3:4], angles.cos()[None], angles.sin()[None], unsqueeze_dim=2
    )
    torch.testing.assert_close((query[None], key[None]), expected)
    assert torch.equal(value, plain[:, 4:])


def test_a_gated_convolution_sees_no_neighbour_in_the_pack(draw: torch.Generator) -> None:
    lengths, width, taps = (4, 1, 6), 3, 3
    gates, filters = torch.randn(sum(lengths), 3 * width, generator=draw), torch.randn(width, taps, generator=draw)
    position = torch.cat([torch.arange(length) for length in lengths])
    expected = []
    for alone in gates.split(lengths):
        b, c, x = alone.chunk(3, dim=1)
        padded = functional.pad((b * x).T, (taps - 1, 0))
        expected.append(c * functional.conv1d(padded[None], filters[:, None], groups=width)[0].T)
    torch.testing.assert_close(formulas.gated_conv(gates, filters, position), torch.cat(expected))


def test_tokens_may_follow_others_than_those_before_them(draw: torch.Generator) -> None:
    gates, filters = torch.randn(2, 6, 9, generator=draw), torch.randn(3, 3, generator=draw)
    # The last token follows the second and the first, as if what is between were not there.
    found = formulas.gated_conv_at(gates, filters, torch.tensor([[5], [1], [0]]))
    for sequence, out in zip(gates, found, strict=True):
        alone = formulas.gated_conv(sequence[[0, 1, 5]], filters, torch.arange(3))
        torch.testing.assert_close(out, alone[-1:])
