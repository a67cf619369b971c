from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from vlm_tune._threads import ahead


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_results_come_in_the_order_of_their_items(depth: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(ahead(pool, str, range(9), depth=depth)) == [str(number) for number in range(9)]


def test_no_more_is_begun_than_was_asked_for() -> None:
    begun = []
    with ThreadPoolExecutor(1) as pool:
        results = ahead(pool, begun.append, range(9), depth=2)
        next(results)
        assert next(results) is None
    assert begun == [0, 1, 2, 3]
