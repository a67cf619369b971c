"""Examples by tag, truth and answer, and what other tools get of them."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pandas as pd
import pytest

from tests.evaluation.scored import many_labels, scored
from vlm_tune.errors import EvaluationError, UnknownLabelError
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.testing import ScriptedPredictor, tiny_dataset


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return Comparison(candidate=scored("tuned", seed=1), reference=scored("base", skill=0.4, seed=2))


def test_tags_have_the_names_of_the_systems(comparison: Comparison) -> None:
    every = comparison.examples()
    assert len(every) == comparison.n
    counts = every.frame()["tag"].value_counts()
    assert counts["base_wrong_tuned_right"] == comparison.wins
    assert counts["tuned_wrong_base_right"] == comparison.losses
    assert counts["both_right"] == comparison.both_right
    assert counts["both_wrong"] == comparison.both_wrong
    assert every.ids[: comparison.wins] == sorted(i for i, tag in comparison.tags.items() if tag == "candidate_only")


def test_they_are_found_by_tag_truth_and_answer(comparison: Comparison) -> None:
    by_name, by_tag = (comparison.examples(tag=tag) for tag in ("base_wrong_tuned_right", "candidate_only"))
    assert by_name.ids == by_tag.ids
    assert len(by_tag) == comparison.wins
    found = comparison.examples(label="dent", predicted="crack", reference_predicted="scratch").frame()
    assert len(found)
    assert set(found["truth"]) == {"dent"}
    assert set(found["tuned"]) == {"crack"}
    assert set(found["base"]) == {"scratch"}
    assert len(comparison.examples(tag="both_right", label="dent", predicted="crack")) == 0


def test_unknown_tags_and_labels_are_refused(comparison: Comparison) -> None:
    with pytest.raises(EvaluationError, match=r"no tag 'won'; there are .*base_wrong_tuned_right"):
        comparison.examples(tag="won")
    with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
        comparison.examples(label="dents")


def test_a_class_finds_every_list_with_it() -> None:
    comparison = Comparison(candidate=many_labels("a", seed=1), reference=many_labels("b", seed=2))
    dented = comparison.examples(label="dent").frame()
    assert set(map(tuple, dented["truth"].str.split(", "))) > {("dent",), ("crack", "dent")}
    assert all("dent" in label for label in dented["truth"])
    assert set(comparison.examples(label="crack, dent").frame()["truth"]) == {"crack, dent"}
    assert set(comparison.examples(label="none").frame()["truth"]) == {"none"}
    assert all("dent" in label for label in comparison.examples(predicted="dent").frame()["a"])


def test_every_format_has_the_same_rows(comparison: Comparison, tmp_path: Path) -> None:
    chosen = comparison.examples(tag="candidate_only")
    frame = chosen.frame()
    csv = pd.read_csv(chosen.save(tmp_path / "wins.csv"))
    parquet = pd.read_parquet(chosen.save(tmp_path / "wins.parquet"))
    lines = [json.loads(line) for line in chosen.save(tmp_path / "wins.jsonl").read_text().splitlines()]
    for rows in (csv.to_dict("records"), parquet.to_dict("records"), lines):
        assert [row["example_id"] for row in rows] == list(frame["example_id"])
        assert [row["base"] for row in rows] == list(frame["base"])
        assert [row["tuned_confidence"] for row in rows] == pytest.approx(list(frame["tuned_confidence"]))
    with pytest.raises(EvaluationError, match=r"not as wins\.xlsx"):
        chosen.save(tmp_path / "wins.xlsx")


def test_photos_come_back_as_a_dataset(tmp_path: Path) -> None:
    data = tiny_dataset(3, split=False)
    files = []
    for example in data:
        path = tmp_path / example.id
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(example.read())
        files.append(example.model_copy(update={"image": path}))
    from vlm_tune.data import Dataset

    evaluator = Evaluator(Dataset(files, task=data.task))
    sides = [
        evaluator.run(ScriptedPredictor(lambda example, w=w: w or example.label, name=n))
        for n, w in (("tuned", ""), ("base", "red"))
    ]
    made = Comparison(candidate=sides[0], reference=sides[1]).examples(tag="candidate_only").to_hf()
    assert isinstance(made, datasets.Dataset)
    assert made[0]["image"].size == (32, 32) or made[0]["image"].width > 0
    assert made[0]["base"] == "red"


def test_a_system_without_a_usable_name_is_called_by_its_part() -> None:
    truth = {"1": "dent", "2": "crack"}
    sides = [
        Evaluation.from_answers(name, truth=truth, answers=truth, classes=["crack", "dent"]) for name in ("truth", "!")
    ]
    found = Comparison(candidate=sides[0], reference=sides[1]).examples()
    assert {"candidate", "reference", "truth"} <= set(found.table.column_names)
    assert [row["candidate"] for row in found] == ["dent", "crack"]


def test_they_show_themselves(comparison: Comparison, capsys: pytest.CaptureFixture[str]) -> None:
    comparison.examples().show()
    shown = capsys.readouterr().out
    assert "the first 20 of 200" in shown
    assert "base_wrong" in shown
