"""The scoreboard says what training took; the merge says what took long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlm_tune.cost import Cost
from vlm_tune.evaluation import CostModel, Evaluation
from vlm_tune.records import Money
from vlm_tune.report import Report

Read = Callable[[Path], Any]
Three = tuple[Evaluation, Evaluation, Evaluation]


def test_training_is_on_the_scoreboard_and_the_merge_says_what_took_long(
    damage: Three, trained: list[object], tmp_path: Path, read: Read
) -> None:
    page = read(Report(damage, sections=trained).save(tmp_path / "report.html"))
    heads = [found["data-label"] for found in page.all("td") if "data-label" in found]
    assert heads[:3] == ["Accuracy", "Coverage", "Training"]
    values = [found["data-value"] for found in page.all("td") if found.get("data-label") == "Training"]
    assert values == ["", "", "492.0"]
    for words in ("8 min 12 s", "Written in11.0 s", "Proved in58.0 s", "Time in all1 min 11 s"):
        assert words in page.words
    costs = CostModel(api=Cost.exact(0.01, basis="a bill"), training=Money(usd=0.55, basis="H100 by the hour"))
    page = read(Report(damage, sections=[*trained, costs]).save(tmp_path / "report.html"))
    assert "8 min 12 s, $0.55" in page.words


def test_a_column_in_which_nobody_has_a_figure_is_left_out(damage: Three, tmp_path: Path, read: Read) -> None:
    page = read(Report(damage).save(tmp_path / "report.html"))
    heads = [found["data-label"] for found in page.all("td") if "data-label" in found]
    assert set(heads) == {"Accuracy", "Coverage"}
    assert "Grey: fewer than 10 photos" not in page.words


def test_no_answer_is_a_column_only_where_some_answer_names_no_class(tmp_path: Path, read: Read) -> None:
    truth = {str(at): ("crack", "dent")[at % 2] for at in range(8)}

    def system(name: str, last: str) -> Evaluation:
        return Evaluation.from_answers(name, truth=truth, answers=truth | {"7": last}, classes=("crack", "dent"))

    pages = {}
    for words in ("crack", "a car"):
        report = Report([system("base", "dent"), system("tuned", words)])
        pages[words] = read(report.save(tmp_path / f"{words}.html"))
    assert "no answer" not in pages["crack"].words
    assert "no answer" in pages["a car"].words
    cells = {words: page.with_class("confusion") for words, page in pages.items()}
    assert {len(found) for found in cells.values()} == {2}
    links = [found for found in pages["a car"].all("a") if found.get("data-answer") == "-1"]
    assert [found["data-words"] for found in links] == ["tuned: dent → no answer"]
    assert all(found["data-answer"] in "01" for found in pages["crack"].all("a") if "data-answer" in found)
