"""The soak of `benchmarks/api_soak.py`, small: faults of every kind, and a client killed with -9."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.api_soak import soak


def test_a_killed_client_loses_nothing_and_pays_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = soak(num_examples=120, share=0.1, kills=1, seed=0, folder=tmp_path)
    shown = capsys.readouterr().out
    assert "ended with -9" in shown
    assert kept, shown
