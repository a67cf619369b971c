"""The costs' section: the sentence, the figure in the scoreboard's colours, both tables, and every source."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_tune.cost import Cost
from vlm_tune.evaluation import CostModel, Evaluation
from vlm_tune.evaluation.unit_costs import GpuImageCost
from vlm_tune.records import Money
from vlm_tune.report import Report

Three = tuple[Evaluation, Evaluation, Evaluation]

API = Cost(usd=0.002, low=0.0015, high=0.0025, n=98, basis="tokens at a price (a page, read 1 May)", system="rival")
GPU = GpuImageCost(
    usd=0.001,
    low=0.0009,
    high=0.0011,
    n=98,
    basis="seconds at a rent (a page, read 2026-11-02)",
    system="tuned",
    warnings=("the rent of <b>H100</b> is old",),
    seconds_per_image=0.1,
    usd_per_hour=3.6,
    utilisation=0.1,
    gpu="H100 at us",
)


def costs(**changes: Any) -> CostModel:
    known = {"api": API, "batch": API.times(0.5), "tuned": GPU, "training": Money(usd=5000, basis="1000 h")}
    return CostModel.model_validate({**known, **changes})


def test_the_section_has_the_sentence_the_figure_both_tables_and_the_sources(
    damage: Three, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    found = costs()
    page = read(Report(damage, sections=[found]).save(tmp_path / "report.html"))
    words = page.words.replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "What it costs at scale",
        found.sentence,
        "What a month costs: measured on n = 98 images, 95 % bands",
        "cheaper than online from 416,667",
        "10,000,000$20,000 [15,000, 25,000]$10,000 [7,500, 12,500]$10,417 [9,417, 11,417]$10,929 [10,929, 13,557]",
        "(4 GPUs)",
        "rival in batch modenever [1,190,477, never]",
        "The band holds both costs at the far ends of their 95 % intervals",
        "One image with rival costs $0.00200 [0.00150, 0.00250]: tokens at a price (a page, read 1 May).",
        "Training, once: $5000.00 (1000 h).",
        "Caution: the rent of <b>H100</b> is old",
    ):
        assert expected in words, expected
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["costs"]
    assert data["sentence"] == found.sentence
    assert data["break_even_per_month"]["images"] == found.break_even_per_month().images
    assert {row["way"] for row in data["per_month"]} == {"api", "batch", "by_the_hour", "all_month"}
    assert [row["gpus"] for row in data["per_month"][:4]] == [None, None, None, 1]


def test_lines_have_the_colours_of_the_scoreboard(damage: Three, tmp_path: Path) -> None:
    text = Report(damage, sections=[costs()]).save(tmp_path / "report.html").read_text(encoding="utf-8")
    colours = dict(re.findall(r"\.c(\d) \{ --c: (#\w+); \}", text))
    drawn = text[text.index('<section id="costs"') :]
    drawn = drawn[: drawn.index("</svg>")]
    base, rival, tuned = (colours[str(number)] for number in range(3))
    assert f'stroke="{rival}"' in drawn
    assert f'stroke="{tuned}"' in drawn
    assert f'stroke="{base}"' not in drawn
    # What is black stays black on a dark page.
    assert "#000000" not in drawn
    assert all("fill=" in element for element in re.findall(r"<text[^>]*>", drawn))


def test_an_api_alone_and_two_models_each_have_a_section(
    damage: Three, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    alone = CostModel(api=Cost.exact(0.01, basis="our bill of October"))
    page = read(Report(damage, sections=[alone, costs()]).save(tmp_path / "report.html"))
    assert page.words.count("What it costs at scale") >= 2
    assert "1,000,000 images a month cost $10,000 with the API." in page.words
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert "break_even_per_month" not in data["costs"]
    assert "break_even_per_month" in data["costs_2"]
