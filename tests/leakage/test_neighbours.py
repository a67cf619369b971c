"""Exact search equals brute force, in any number of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from vlm_tune.leakage import neighbours
from vlm_tune.leakage.neighbours import above, centred, top_k

Array = NDArray[np.float32]


@pytest.fixture(params=[7, 2048])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


def _unit(n: int, d: int = 16, *, seed: int) -> Array:
    rows = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return centred(rows, np.zeros(d, np.float32))


def _brute(queries: Array, references: Array) -> NDArray[np.float64]:
    return queries.astype(np.float64) @ references.astype(np.float64).T


@pytest.mark.usefixtures("_blocks")
def test_top_k_is_the_brute_force_order() -> None:
    queries, references = _unit(23, seed=0), _unit(41, seed=1)
    indices, scores = top_k([queries], references, 5)
    brute = _brute(queries, references)
    assert np.array_equal(indices, np.argsort(-brute, axis=1)[:, :5])
    assert np.allclose(scores, np.sort(brute, axis=1)[:, ::-1][:, :5], atol=1e-6)


@pytest.mark.usefixtures("_blocks")
def test_a_pair_counts_in_its_better_view() -> None:
    queries, mirrored, references = _unit(9, seed=0), _unit(9, seed=2), _unit(30, seed=1)
    _, scores = top_k([queries, mirrored], references, 1)
    best = np.maximum(_brute(queries, references), _brute(mirrored, references)).max(axis=1)
    assert np.allclose(scores[:, 0], best, atol=1e-6)


@pytest.mark.usefixtures("_blocks")
def test_a_photo_is_not_its_own_neighbour() -> None:
    rows = _unit(20, seed=3)
    indices, _ = top_k([rows], rows, 1, exclude=np.arange(20))
    assert not np.any(indices[:, 0] == np.arange(20))
    _, scores = top_k([rows[:1]], rows[:1], 3, exclude=np.zeros(1, np.int64))
    assert scores.shape == (1, 1)
    assert scores[0, 0] == -np.inf


@pytest.mark.usefixtures("_blocks")
def test_above_finds_every_pair_over_the_threshold() -> None:
    queries, references = _unit(23, seed=0), _unit(41, seed=1)
    found = {(int(i), int(j)) for rows, columns, _ in above([queries], references, 0.3)
             for i, j in zip(rows, columns, strict=True)}  # fmt: skip
    assert found == set(zip(*map(np.ndarray.tolist, np.nonzero(_brute(queries, references) >= 0.3)), strict=True))
    assert found


def test_equal_similarities_keep_the_order_of_the_references() -> None:
    row = _unit(1, seed=0)
    indices, _ = top_k([row], np.repeat(row, 5, axis=0), 3)
    assert indices.tolist() == [[0, 1, 2]]


def test_centring_tells_apart_what_a_common_part_hides() -> None:
    common = 10 * np.ones(8, np.float32)
    rows = np.stack([common + np.eye(8, dtype=np.float32)[i] for i in range(8)])
    plain, moved = centred(rows, np.zeros(8, np.float32)), centred(rows, rows.mean(axis=0))
    assert plain[0] @ plain[1] > 0.99
    assert moved[0] @ moved[1] < 0.1
