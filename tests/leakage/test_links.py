"""Groups are what links connect, whatever their order."""

from __future__ import annotations

import networkx
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune.leakage.links import Links

PAIRS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60)


@given(PAIRS)
def test_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    components = networkx.connected_components(networkx.Graph(pairs))
    expected = tuple(sorted(tuple(sorted(group)) for group in components if len(group) > 1))
    assert Links(pairs).groups() == expected


def test_joining_says_whether_they_were_apart() -> None:
    links = Links[str]()
    assert links.join("a", "b")
    assert not links.join("b", "a")
    assert links.connects("a", "b")
    assert not links.connects("a", "c")
    links.join_all(["c", "b", "d"])
    assert links.groups() == (("a", "b", "c", "d"),)


def test_a_long_chain_is_no_deep_recursion() -> None:
    links = Links((at, at + 1) for at in range(50_000))
    assert len(links.groups()[0]) == 50_001
