"""Packed attention against each sequence on its own, in float64."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.attention
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vlm_tune.vlm.fused import packing
from vlm_tune.vlm.fused.packing import Runs, attend, attend_from_tails, make_runs, starts, tails

RUNS: Runs = ((2, 7), (1, 5), (3, 2))
TOKENS = 25


def sequences(x: Tensor, runs: Runs = RUNS) -> list[Tensor]:
    lengths = [length for count, length in runs for _ in range(count)]
    return list(torch.split(x, lengths))


def heads(key_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(TOKENS, count, 6, dtype=torch.float64) for count in (4, key_heads, key_heads))


def alone(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """One sequence's attention, by its formula."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scores = torch.einsum("qhw,khw->hqk", query, key) / query.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    return torch.einsum("hqk,khw->qhw", scores.softmax(-1), value).flatten(1)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30))
def test_runs_hold_every_sequence_with_little_filling(lengths: list[int]) -> None:
    order, runs = make_runs(lengths)
    assert sorted(order) == list(range(len(lengths)))
    places = [length for count, length in runs for _ in range(count)]
    assert len(places) == len(lengths)
    for index, place in zip(order, places, strict=True):
        assert 0.97 * place <= lengths[index] <= place
    assert all(first[1] > second[1] for first, second in itertools.pairwise(runs))
    # Equal lengths keep their order, so that a batch of one length stays as it is.
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)
    assert all(a < b for a, b in itertools.pairwise(order) if lengths[a] == lengths[b])


def test_starts() -> None:
    assert list(starts(RUNS)) == [0, 7, 14, 19, 21, 23]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
@pytest.mark.parametrize("runs", [RUNS, ((5, 5),), ((1, TOKENS),)], ids=str)
def test_attention_stays_within_each_sequence(runs: Runs, key_heads: int, causal: bool) -> None:
    query, key, value = heads(key_heads)
    wanted = [
        alone(*parts, causal=causal)
        for parts in zip(sequences(query, runs), sequences(key, runs), sequences(value, runs), strict=True)
    ]
    assert torch.allclose(attend(query, key, value, runs, causal=causal), torch.cat(wanted), atol=1e-12)


@pytest.mark.parametrize("tail", [1, 2, 4, 9])
@pytest.mark.parametrize("key_heads", [4, 1])
def test_tails_attend_as_they_would_among_all(tail: int, key_heads: int) -> None:
    query, key, value = heads(key_heads)
    whole = attend(query, key, value, RUNS, causal=True)
    ours = attend_from_tails(tails(query, RUNS, tail), key, value, RUNS, tail=tail)
    assert torch.allclose(ours, tails(whole, RUNS, tail), atol=1e-12)


@pytest.mark.parametrize("tail", [1, 2, 4, 9])
def test_tails_are_the_last_tokens_or_all(tail: int) -> None:
    x = torch.arange(2 * TOKENS).view(TOKENS, 2)
    assert torch.equal(tails(x, RUNS, tail), torch.cat([one[-tail:] for one in sequences(x)]))


def test_a_shape_gets_a_plan_of_its_own_when_enough_was_done_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_WORTH_A_PLAN", 2 * (4 * 2 * 3 * 3 * 4 / 2))
    monkeypatch.setattr(packing, "_done", {})
    on_gpu = SimpleNamespace(is_cuda=True, shape=(1, 2, 3, 4))
    longer = SimpleNamespace(is_cuda=True, shape=(1, 2, 5, 4))

    def may_plan(query: SimpleNamespace, causal: bool | None = True) -> bool:
        with packing._kernels(query, on_gpu, causal):
            return torch.backends.cuda.cudnn_sdp_enabled()

    with torch.nn.attention.sdpa_kernel(packing._FASTEST, set_priority=True):
        assert [may_plan(on_gpu) for _ in range(4)] == [False, False, True, True]
        assert not may_plan(longer)
        assert [may_plan(on_gpu, causal=None) for _ in range(2)] == [False, True]
        assert may_plan(on_gpu)
        assert may_plan(SimpleNamespace(is_cuda=False, shape=(9,)))
