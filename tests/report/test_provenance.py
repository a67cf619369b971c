"""A report says what it takes to do it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlm_tune.evaluation import Evaluation
from vlm_tune.report import Report

Read = Callable[[Path], Any]
Three = tuple[Evaluation, Evaluation, Evaluation]


def test_what_it_takes_to_do_it_again_is_told(damage: Three, trained: list[object], tmp_path: Path, read: Read) -> None:
    table = damage[1].table
    version = pa.array(["gemini-3-flash-preview"] * 98)
    table = table.set_column(table.column_names.index("model_version"), "model_version", version)
    table = table.set_column(table.column_names.index("cost_usd"), "cost_usd", pa.array([0.001] * 98))
    gemini = replace(damage[1], table=table)
    command = "python car_damage.py --folder 'my photos' <&2"
    report = Report([damage[0], gemini, damage[2]], sections=trained, command=command)
    page = read(report.save(tmp_path / "report.html"))
    for words in (command, "Training of tuned0", "$0.5 in, $3 out, a million tokens", "read 2026-"):
        assert words in page.words, words
    found = json.loads((tmp_path / "report.json").read_text())["provenance"]
    assert found["command"] == command
    assert found["seeds"] == {"Training of tuned": "0"}
    assert found["prices"][0][0] == "gemini-3-flash-preview"
