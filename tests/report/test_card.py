"""The model card: what the Hub reads, the verdict, its limits, and nothing that a label could smuggle in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.report import Report
from vlm_tune.task import Task

Three = tuple[Evaluation, Evaluation, Evaluation]


def front(card: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_the_card_has_what_the_hub_reads(damage: Three) -> None:
    _, rival, tuned = damage
    card = Report(damage, sections=[Comparison(candidate=tuned, reference=rival)]).to_markdown()
    about = front(card)
    assert about["pipeline_tag"] == "image-text-to-text"
    assert "vlm-tune" in about["tags"]
    (index,) = about["model-index"]
    assert index["name"] == "tuned"
    metrics = {one["type"]: one["value"] for one in index["results"][0]["metrics"]}
    assert metrics == {"accuracy": 0.8878, "f1": round(tuned.macro_f1.value, 4)}


def test_the_card_has_the_verdict_and_its_limits(damage: Three) -> None:
    _, rival, tuned = damage
    report = Report(damage, sections=[Comparison(candidate=tuned, reference=rival)], command="python car_damage.py")
    card = report.to_markdown()
    assert card.startswith("---\n")
    assert "\n# tuned\n" in card
    for words in (
        report.answer,
        "| rival | 82.7 % [74.0, 88.9] | 98 | – | – |",
        "Which of tuned and rival is better is not established (p = 0.180); about 320 test photos would settle it.",
        "Measured on 98 test photos",
        "It tells 3 classes apart and knows no other: crack, dent, scratch.",
        "Weakest class: ",
        "```bash\npython car_damage.py\n```",
        "| torch |",
    ):
        assert words in card, words


def test_training_and_merge_are_told_without_folders(damage: Three, trained: list[object], tmp_path: Path) -> None:
    card = Report(damage, sections=trained).to_markdown(model="tuned")
    for words in ("| photos | 319, 3 epochs |", "| tensors | 252 changed, 498 equal byte for byte |", "| seed | 0 |"):
        assert words in card
    assert str(tmp_path) not in card
    # A folder on somebody's disk is no base model on the Hub.
    assert "base_model" not in front(card)


def test_another_system_can_be_the_subject_if_there_is_one(damage: Three) -> None:
    assert "\n# rival\n" in Report(damage).to_markdown(model="rival")
    with pytest.raises(EvaluationError, match="no system is called 'nobody'; there are base, rival, tuned"):
        Report(damage).to_markdown(model="nobody")


def test_too_few_answers_are_no_metric() -> None:
    truth = {str(at): ("dent", "crack")[at % 2] for at in range(20)}
    some = {key: truth[key] for key in list(truth)[:12]}
    card = Report(
        [Evaluation.from_answers("silent", truth=truth, answers=some, classes=("crack", "dent"))]
    ).to_markdown()
    assert "model-index" not in front(card)
    assert "| silent | too few answers: between 60.0 % and 100.0 % | 12 |" in card


def test_names_are_shown_and_do_nothing() -> None:
    label = "<script>x</script> | ![a](http://x) ```"
    truth = {"a": label, "b": "dent"}
    one = Evaluation.from_answers(label, truth=truth, answers=truth, classes=(label, "dent"))
    one = replace(one, task=Task(prompt="```\n# Not a heading", classes=(label, "dent")))
    card = Report([one], command="echo ```").to_markdown()
    # Front matter is data; in the text only the fence around the prompt shows things as they are.
    text = card.split("---\n", 2)[2].partition("## Question")[0]
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
    assert "](http" not in text
    assert "\n````text\n" in card
    assert "echo" not in card


def test_a_notebook_shows_the_scoreboard(damage: Three, read: Callable[[Path], Any]) -> None:
    shown = Report(damage, title="<b>x</b>")._repr_html_()
    assert "88.8 %" in shown
    assert "<b>x</b>" not in shown
