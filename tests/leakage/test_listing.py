"""What a report lists is enough for every remedy, and never all pairs of many copies."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune.leakage.links import Links
from vlm_tune.leakage.listing import PER_PHOTO, thinned

PAIRS = st.dictionaries(
    st.tuples(st.integers(0, 12), st.integers(100, 112)), st.floats(0, 1, allow_nan=False), max_size=80
)


@given(PAIRS)
def test_no_photo_and_no_connection_is_lost(found: dict[tuple[int, int], float]) -> None:
    kept = thinned(found)
    assert kept.items() <= found.items()
    for side in (0, 1):
        assert {pair[side] for pair in kept} == {pair[side] for pair in found}
    assert Links(kept).groups() == Links(found).groups()


def test_many_copies_give_few_pairs_and_the_best_ones() -> None:
    scores = np.random.default_rng(0).random((100, 300))
    found = {(x, 1000 + y): float(scores[x, y]) for x in range(100) for y in range(300)}
    kept = thinned(found)
    assert len(kept) <= PER_PHOTO * 100 + 2 * 400
    for x in range(100):
        best = sorted(scores[x], reverse=True)[:PER_PHOTO]
        assert set(best) <= {score for pair, score in kept.items() if pair[0] == x}
