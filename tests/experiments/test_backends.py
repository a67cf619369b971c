"""The local backend: one unit after the other, and what a failure is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm_tune.errors import StoppedError, TrainingError
from vlm_tune.experiments.backends import Backend, LocalBackend, Outcome, Report


def work(unit: int, report: Report) -> tuple[int, bool]:
    go_on = report(f"at {unit}")
    if unit == 1:
        raise TrainingError("memory ran out")
    if unit == 7:
        raise StoppedError(step=1, num_steps=2, checkpoints=Path("runs"))
    if unit == 8:
        raise KeyError("no such thing")
    return unit**2, go_on


def test_a_failure_of_one_unit_is_its_outcome() -> None:
    drawn: list[int] = []

    def units() -> Iterator[int]:
        for unit in range(3):
            drawn.append(unit)
            yield unit

    found = []
    for outcome in LocalBackend().run(work, units()):
        found.append(outcome)
        assert drawn == [outcome.unit for outcome in found]
    assert found == [Outcome(0, (0, True)), Outcome(1, error="memory ran out"), Outcome(2, (4, True))]


def test_reports_are_heard_and_answered() -> None:
    heard: list[tuple[int, str]] = []

    def hear(unit: int, message: str) -> bool:
        heard.append((unit, message))
        return unit == 2

    found = list(LocalBackend().run(work, [0, 2], heard=hear))
    assert [outcome.result for outcome in found] == [(0, False), (4, True)]
    assert heard == [(0, "at 0"), (2, "at 2")]


@pytest.mark.parametrize(("unit", "kind"), [(7, StoppedError), (8, KeyError)])
def test_all_else_comes_through(unit: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        list(LocalBackend().run(work, [unit, 0]))


def test_batches() -> None:
    assert isinstance(LocalBackend(), Backend)
    assert list(LocalBackend().map_batches(sum, [1, 2, 3], most=2)) == [3, 3]
