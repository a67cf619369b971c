"""The photo whose details come back gets the votes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tests.leakage.planting import COPIES, as_array, cropped, scene
from vlm_tune.embedding import LANDMARKS, MIRROR, landmarks
from vlm_tune.leakage.voting import Details, vote

Marks = NDArray[np.uint8]


def drawn(rng: np.random.Generator, count: int) -> Marks:
    shares = np.sqrt(rng.dirichlet(np.full(128, 0.3), count))
    return np.clip(np.rint(512 * shares), 0, 255).astype(np.uint8).reshape(count, 128)


def details(photos: Sequence[Marks]) -> Details:
    descriptors = np.zeros((len(photos), LANDMARKS, 128), np.uint8)
    for row, marks in enumerate(photos):
        descriptors[row, : len(marks)] = marks
    return Details(descriptors, np.array([len(marks) for marks in photos], np.int64))


def ranked(queries: Sequence[Marks], photos: Sequence[Marks], k: int) -> list[list[int]]:
    """Places in `photos`, -1 for none."""
    rows, votes = vote(details([*queries, *photos]), np.arange(len(queries)), np.arange(len(photos)) + len(queries), k)
    assert ((votes > 0) == (rows >= 0)).all()
    assert (np.diff(votes, axis=1) <= 0).all()
    return np.where(rows < 0, -1, rows - len(queries)).tolist()


@pytest.fixture(scope="module")
def scenes() -> list[Marks]:
    return [landmarks(as_array(scene(seed))) for seed in range(24)]


@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_the_original_of_a_copy_comes_first(copy: Callable[[Image.Image], Image.Image], scenes: list[Marks]) -> None:
    copies = [landmarks(as_array(copy(scene(seed)))) for seed in (3, 17)]
    assert ranked(copies, scenes, 1) == [[3], [17]]


def test_a_third_of_the_photo_is_enough(scenes: list[Marks]) -> None:
    assert ranked([landmarks(as_array(cropped(0.4)(scene(9))))], scenes, 1) == [[9]]


def test_a_photo_is_not_its_own_candidate() -> None:
    rng = np.random.default_rng(0)
    one, other = drawn(rng, 30), drawn(rng, 30)
    photos = [one, other, np.concatenate([one[:10], drawn(rng, 20)])]
    rows, _ = vote(details(photos), np.arange(3), np.arange(3), 3)
    assert rows[0, 0] == 2
    assert rows[2, 0] == 0
    assert all(row not in found for row, found in enumerate(rows.tolist()))


def test_a_mirrored_photo_has_mirrored_features() -> None:
    photos = [drawn(np.random.default_rng(seed), 20) for seed in range(4)]
    assert ranked([photos[2][:, MIRROR]], photos, 1) == [[2]]


def test_a_feature_of_every_photo_counts_little() -> None:
    rng = np.random.default_rng(0)
    common, rare = drawn(rng, 12), drawn(rng, 3)
    photos = [np.concatenate([common, drawn(rng, 5)]) for _ in range(30)]
    photos[7] = np.concatenate([rare, drawn(rng, 14)])
    assert ranked([np.concatenate([common, rare])], photos, 1) == [[7]]


@pytest.mark.parametrize("counts", [[], [0], [0, 0, 0], [1], [0, 3, 0]])
def test_few_features_or_none(counts: list[int]) -> None:
    rng = np.random.default_rng(0)
    photos = [drawn(rng, count) for count in counts]
    assert ranked([drawn(rng, 0)], photos, 2) == [[-1, -1]]
    assert ranked([], photos, 2) == []
    (found,) = ranked([drawn(rng, 4)], photos, 2)
    assert set(found) <= {-1, *np.flatnonzero(counts)}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(1, 6))
def test_the_order_of_the_queries_changes_nothing(seed: int, num_photos: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    shared = drawn(rng, 6)
    photos = [np.concatenate([shared[rng.random(6) < 0.4], drawn(rng, 3)]) for _ in range(num_photos)]
    queries = [np.concatenate([shared[rng.random(6) < 0.4], drawn(rng, 3)]) for _ in range(9)]
    assert ranked(queries[::-1], photos, k)[::-1] == ranked(queries, photos, k)
