"""The compact index answers as a dict does, whatever the keys."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from vlm_tune.journal import KeyIndex

# Few different halves, so that keys collide in one half and differ in the other.
halves = st.sampled_from(["0" * 16, "f" * 16, "0" * 15 + "1", "8" + "0" * 15])


@given(st.lists(st.tuples(st.tuples(halves, halves).map("".join), st.integers(0, 2**62))))
def test_it_answers_as_a_dict_does(items: list[tuple[str, int]]) -> None:
    index, expected = KeyIndex(), {}
    for key, number in items:
        index[key] = number
        expected[key] = number
        assert len(index) == len(expected)
    assert {key: index.get(key) for key in expected} == expected
    assert "a" * 32 not in index


def test_it_grows() -> None:
    keys = [hashlib.sha256(b"%d" % number).hexdigest()[:32] for number in range(20_000)]
    index = KeyIndex()
    for number, key in enumerate(keys[:10_000]):
        index[key] = number
    assert [index.get(key) for key in keys] == [*range(10_000), *[None] * 10_000]
    assert len(index) == 10_000
