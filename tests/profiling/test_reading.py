from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vlm_tune.profiling import reading
from vlm_tune.profiling.measures import Measures, measure
from vlm_tune.profiling.reading import measure_all
from vlm_tune.records import Example


def test_what_does_not_decode_is_listed_in_order(photo: Callable[..., bytes]) -> None:
    good = photo(60, 50, 0, "JPEG")
    images = [good, b"", good[:-200], Path("/nowhere/gone.jpg"), good]
    measures, broken = measure_all([Example(id=f"{n}", image=i, label="a") for n, i in enumerate(images)])
    assert list(measures) == ["0", "4"]
    assert [file.example_id for file in broken] == ["1", "2", "3"]
    for file, words in zip(broken, ("empty", "truncated or corrupt", "No such file"), strict=True):
        assert words in file.reason


def test_the_same_bytes_are_measured_once(photo: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def counted(data: bytes, *, name: str) -> Measures:
        measured.append(name)
        return measure(data, name=name)

    monkeypatch.setattr(reading, "measure", counted)
    same, other = photo(8, 8, 0), photo(8, 8, 1)
    measures, _ = measure_all([Example(id=f"{n}", image=other if n == 7 else same, label="a") for n in range(5000)])
    assert len(measures) == 5000
    # A few threads may meet the first photo at the same time.
    assert len(measured) <= 10


def test_leaving_early_does_not_read_the_rest(monkeypatch: pytest.MonkeyPatch, photo: Callable[..., bytes]) -> None:
    read: list[str] = []
    gate = threading.Event()

    def interrupted(data: bytes, *, name: str) -> Measures:
        read.append(name)
        if len(read) == 1:
            raise KeyboardInterrupt
        gate.wait(0.05)
        return measure(data, name=name)

    monkeypatch.setattr(reading, "measure", interrupted)
    examples = [Example(id=f"{n}", image=photo(8, 8, n), label="a") for n in range(500)]
    with pytest.raises(KeyboardInterrupt):
        measure_all(examples)
    assert len(read) < 100
