import threading
import time

import pytest

from vlm_tune.errors import ImageError
from vlm_tune.training.running.ahead import Ahead
from vlm_tune.training.running.steps import Row


def rows(*indices: int) -> list[Row]:
    return [Row(index, 1.0) for index in indices]


def test_what_is_announced_is_made_in_threads_and_once() -> None:
    made: list[tuple[int, str]] = []

    def work(row: Row) -> int:
        made.append((row.index, threading.current_thread().name))
        return row.index

    ahead = Ahead(work)
    ahead.coming(rows(1, 2, 3))
    ahead.coming(rows(3))
    assert [ahead.take(row) for row in rows(3, 1, 2, 4)] == [3, 1, 2, 4]
    ahead.close()
    assert sorted(index for index, _ in made) == [1, 2, 3, 4]
    assert {name.startswith("vlm-tune-photos") for index, name in made if index < 4} == {True}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vlm-tune-photos")]


def test_what_goes_wrong_is_told_where_it_is_taken() -> None:
    def work(row: Row) -> int:
        raise ImageError(f"{row.index}", "it is torn")

    ahead = Ahead(work)
    ahead.coming(rows(1))
    with pytest.raises(ImageError, match="torn"):
        ahead.take(rows(1)[0])
    ahead.close()


def test_what_nobody_takes_is_given_up() -> None:
    made: list[int] = []

    def work(row: Row) -> int:
        time.sleep(0.002)
        made.append(row.index)
        return row.index

    ahead = Ahead(work)
    for start in range(0, 10_000, 4):
        ahead.coming(rows(*range(start, start + 4)))
    assert ahead.take(rows(9_999)[0]) == 9_999
    ahead.close()
    assert len(made) < 5_000


def test_closed_it_begins_again() -> None:
    ahead = Ahead(lambda row: row.index)
    for _ in range(2):
        ahead.coming(rows(1))
        assert ahead.take(rows(1)[0]) == 1
        ahead.close()
