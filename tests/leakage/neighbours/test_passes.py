"""Exact search equals the double-precision brute force, in any number of blocks, on either engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlm_tune.errors import EmbeddingError
from vlm_tune.leakage.neighbours import Pairs, above, centred, device, engine, host, passes, repeats, scan, top_k

Array = NDArray[np.float32]
Doubles = NDArray[np.float64]

property_test = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=["host", "device"], autouse=True)
def _small_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several blocks in every direction; the GPU's engine runs on CPU tensors."""
    with monkeypatch.context() as patch:
        for name, size in {"QUERIES": 3, "REFERENCES": 128, "TURNS": 2}.items():
            patch.setattr(host, name, size)
        for name, size in {"QUERIES": 13, "REFERENCES": 12, "GROUP": 3, "GROUPS_AT_ONCE": 11}.items():
            patch.setattr(device, name, size)
        patch.setattr(repeats, "PAIRS_AT_ONCE", 17)
        if request.param == "device":
            patch.setattr(passes, "prepare", _tensors)
        yield


def _tensors(views: list[Array], references: Array, _: str) -> tuple[list[Any], Any]:
    found = engine.prepare(views, references, "cpu")
    if not len(views[0]) or not len(references):
        return found
    return [engine._tensor(view, "cpu") for view in views], engine._tensor(references, "cpu")


def test_a_view_that_runs_backwards_through_its_array_becomes_a_tensor() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert engine._tensor(rows[:, ::-1], "cpu").tolist() == [[2, 1, 0], [5, 4, 3]]


def _rows(rng: np.random.Generator, num: int, dim: int, kind: str) -> Array:
    """Rows of norm 1: scattered, on a coarse grid (many ties), few distinct ones, or all but equal."""
    if kind == "grid":
        rows = rng.integers(-1, 2, (num, dim)).astype(np.float64)
    elif kind == "repeated":
        rows = rng.standard_normal((3, dim))[rng.integers(0, 3, num)]
    else:
        common = 0.0 if kind == "scattered" else rng.standard_normal(dim) * 1e4
        rows = common + rng.standard_normal((num, dim))
    return centred(rows.astype(np.float32), np.zeros(dim, np.float32))


def _brute(views: list[Array], references: Array) -> Doubles:
    products = [view.astype(np.float64)[:, None] * references.astype(np.float64)[None] for view in views]
    sums = [engine.fold(part.reshape(-1, references.shape[1])).reshape(part.shape[:2]) for part in products]
    plain = [view.astype(np.float64) @ references.astype(np.float64).T for view in views]
    assert np.allclose(sums, plain, rtol=0, atol=1e-14)
    return np.asarray(np.max(sums, axis=0))


@st.composite
def _problems(draw: st.DrawFn) -> tuple[np.random.Generator, list[Array], Array, bool]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = st.sampled_from(["scattered", "grid", "repeated", "alike"])
    dim, num_references = draw(st.integers(1, 12)), draw(st.integers(1, 70))
    references = _rows(rng, num_references, dim, draw(kinds))
    within = draw(st.booleans())
    first = references if within else _rows(rng, draw(st.integers(1, 40)), dim, draw(kinds))
    others = [_rows(rng, len(first), dim, draw(kinds)) for _ in range(draw(st.integers(0, 1)))]
    return rng, [first, *others], references, within


@property_test
@given(_problems(), st.integers(1, 12), st.booleans())
def test_top_k_is_the_brute_force(
    problem: tuple[np.random.Generator, list[Array], Array, bool], k: int, leave_out: bool
) -> None:
    rng, views, references, _ = problem
    exclude = rng.integers(-1, len(references), len(views[0])) if leave_out else None
    brute = _brute(views, references)
    if exclude is not None:
        brute[np.flatnonzero(exclude >= 0), exclude[exclude >= 0]] = -np.inf
    order = np.argsort(-brute, axis=1, kind="stable")[:, :k]
    indices, similarities = top_k(views, references, k, exclude=exclude)
    assert np.array_equal(similarities, np.take_along_axis(brute, order, axis=1))
    there = np.isfinite(similarities)
    assert np.array_equal(indices[there], order[there])


@property_test
@given(_problems(), st.booleans())
def test_above_and_scan_are_the_brute_force(
    problem: tuple[np.random.Generator, list[Array], Array, bool], on_a_score: bool
) -> None:
    rng, views, references, within = problem
    brute = _brute(views, references)
    # A cut that is itself a score is as near as a score can come to it.
    cut = float(rng.choice(brute.ravel())) if on_a_score else float(rng.uniform(-1, 1))
    wanted = np.triu(brute >= cut, 1) if within else brute >= cut
    queries, rows, similarities = Pairs.join(above(views, references, cut, within=within))
    found = sorted(zip(queries.tolist(), rows.tolist(), strict=True))
    assert found == list(zip(*(part.tolist() for part in np.nonzero(wanted)), strict=True))
    assert np.array_equal(similarities, brute[queries, rows])

    result = scan(views, references, cut, within=within)
    assert np.array_equal(np.stack(result.pairs[:2]), np.stack(np.nonzero(wanted)))
    assert np.array_equal(result.pairs.similarities, brute[wanted])
    assert result.num_above == np.count_nonzero(wanted)
    if within:
        np.fill_diagonal(brute, -np.inf)
    assert np.array_equal(result.similarities, brute.max(axis=1))
    there = np.isfinite(result.similarities)
    assert np.array_equal(result.nearest[there], brute.argmax(axis=1)[there])


@property_test
@given(_problems(), st.integers(0, 30))
def test_a_limited_scan_keeps_the_most_similar_pairs_and_counts_all(
    problem: tuple[np.random.Generator, list[Array], Array, bool], limit: int
) -> None:
    _, views, references, within = problem
    brute = _brute(views, references)
    wanted = np.triu(brute >= 0, 1) if within else brute >= 0
    result = scan(views, references, 0, within=within, max_pairs=limit)
    assert result.num_above == np.count_nonzero(wanted)
    kept = np.sort(brute[wanted])[::-1][:limit]
    assert np.array_equal(np.sort(result.pairs.similarities)[::-1], kept)
    assert np.array_equal(brute[result.pairs.queries, result.pairs.references], result.pairs.similarities)


def test_equal_similarities_keep_the_order_of_the_references() -> None:
    row, other = np.float32([[1, 0, 0]]), np.float32([[0, 1, 0]])
    references = np.concatenate([other, row, row, other, row, row])
    assert top_k([row], references, 5)[0].tolist() == [[1, 2, 4, 5, 0]]


def test_a_hundred_thousand_equal_photos_are_counted_without_being_listed() -> None:
    rows = np.tile(np.float32([[0.6, 0.8]]), (100_000, 1))
    result = scan([rows[:1000]], rows, 0.9, max_pairs=50)
    assert result.num_above == 100_000_000
    assert len(result.pairs.queries) == 50
    assert not result.nearest.any()
    first = list(itertools.islice(above([rows], rows, 0.9, within=True), 3))
    assert [pairs.references[0] for pairs in first] == [1, 2, 3]


def test_nothing_to_compare_is_no_error() -> None:
    none, some = np.zeros((0, 3), np.float32), np.eye(3, dtype=np.float32)
    for queries, references in ((none, some), (some, none), (none, none)):
        result = scan([queries], references, 0.5)
        assert result.nearest.shape == (len(queries),)
        assert result.num_above == len(result.pairs.queries) == 0
        assert top_k([queries], references, 2)[0].shape == (len(queries), min(2, len(references)))
    alone = scan([some[:1]], some[:1], 0.5, within=True)
    assert alone.similarities.tolist() == [-np.inf]


@pytest.mark.parametrize(
    ("views", "references", "message"),
    [
        ([np.eye(3)], np.eye(4), "rows of one length"),
        ([], np.eye(4), "rows of one length"),
        ([np.eye(3), np.eye(3)[:2]], np.eye(3), "as many rows"),
        ([np.eye(3) * 2], np.eye(3), "longer than 1"),
        ([np.eye(3)], np.where(np.eye(3) > 0, np.nan, 0), "not finite"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_refused(views: list[Array], references: Array, message: str) -> None:
    with pytest.raises(EmbeddingError, match=message):
        scan([view.astype(np.float32) for view in views], references.astype(np.float32), 0.5)


def test_centring_tells_apart_what_a_common_part_hides() -> None:
    common = 10 * np.ones(8, np.float32)
    rows = np.stack([common + np.eye(8, dtype=np.float32)[i] for i in range(8)])
    plain, moved = centred(rows, np.zeros(8, np.float32)), centred(rows, rows.mean(axis=0))
    assert plain[0] @ plain[1] > 0.99
    assert moved[0] @ moved[1] < 0.1
