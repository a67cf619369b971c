"""Every call is accounted for, also those of a process that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.errors import StorageError
from vlm_tune.predictors.ledger import Ledger


def test_what_is_committed_is_paid_or_may_still_be() -> None:
    ledger = Ledger()
    calls = [ledger.send(0.25) for _ in range(4)]
    assert (ledger.num_pending, ledger.committed_usd) == (4, 1.0)
    ledger.settle(calls[0], paid_usd=0.125)
    ledger.settle(calls[1], paid_usd=0.0)
    ledger.lose(calls[2])
    assert (ledger.paid_usd, ledger.possibly_billed, ledger.possibly_billed_usd) == (0.125, 1, 0.25)
    assert (ledger.num_pending, ledger.committed_usd) == (1, 0.625)
    ledger.close()
    assert (ledger.num_pending, ledger.possibly_billed) == (0, 2)
    ledger.lose(calls[0])
    assert ledger.possibly_billed == 2


def test_a_killed_run_leaves_what_was_in_flight(tmp_path: Path) -> None:
    path = tmp_path / "state" / "calls.txt"
    ledger = Ledger(path)
    first, second, _ = ledger.send(0.25), ledger.send(0.5), ledger.send(0.125)
    ledger.settle(second, paid_usd=0.0625)
    ledger.lose(first)
    again = Ledger(path)
    assert (again.paid_usd, again.possibly_billed, again.possibly_billed_usd) == (0.0625, 2, 0.375)
    assert again.committed_usd == 0.4375
    late = again.resume(0.25)
    again.settle(late, paid_usd=0.125)
    assert (again.possibly_billed, Ledger(path).possibly_billed) == (1, 1)
    assert Ledger(path).committed_usd == 0.3125


def test_a_torn_line_says_nothing_and_joins_no_other(tmp_path: Path) -> None:
    path = tmp_path / "calls.txt"
    path.write_text("+ 0.5\n+ 0.25\n- 0.2")
    ledger = Ledger(path)
    assert ledger.possibly_billed == 2
    ledger.send(0.125)
    assert path.read_text() == "+ 0.5\n+ 0.25\n+ 0.125\n"


@pytest.mark.parametrize("content", ["hello\n", "+ x\n", "- 0.5 x\n"])
def test_another_file_is_not_taken_for_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "calls.txt"
    path.write_text(content)
    with pytest.raises(StorageError, match="not a list of calls"):
        Ledger(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        Ledger(tmp_path / "file" / "calls.txt").send(0.1)
