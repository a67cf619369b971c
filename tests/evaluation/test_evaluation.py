"""Counting: what is wrong, what is missing, and what a file keeps of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from vlm_tune.errors import EvaluationError, StorageError, UnknownLabelError
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.records import Prediction, Usage
from vlm_tune.statistics import wilson
from vlm_tune.testing import ScriptedPredictor, tiny_dataset

CLASSES = ("crack", "dent", "scratch")
TRUTH = {f"{number}.jpg": CLASSES[number % 3] for number in range(30)}


def evaluation_of(**answers: str) -> Evaluation:
    given = TRUTH | {f"{number[1:]}.jpg": label for number, label in answers.items()}
    kept = {example_id: label for example_id, label in given.items() if label}
    return Evaluation.from_answers("a rival", truth=TRUTH, answers=kept, classes=CLASSES)


def test_answers_made_elsewhere_are_counted() -> None:
    evaluation = evaluation_of(_0="dent", _1="crack", _2="I am not sure")
    assert evaluation.accuracy == wilson(27, 30)
    assert dict(evaluation.outcomes) == {"answered": 29, "unparseable": 1, "refused": 0, "failed": 0}
    assert evaluation.truths == TRUTH
    np.testing.assert_array_equal(evaluation.confusion(), [[9, 1, 0, 0], [1, 9, 0, 0], [0, 0, 9, 1]])


def test_no_class_counts_as_wrong_and_missing_does_not_count() -> None:
    evaluation = evaluation_of(_0="", _3="no idea")
    assert evaluation.coverage == pytest.approx(29 / 30)
    assert evaluation.accuracy == wilson(28, 29)
    assert evaluation.accuracy_bounds == (28 / 30, 29 / 30)
    assert evaluation.confusion().sum() == 29
    assert evaluation.per_class()["crack"] == wilson(8, 9)


def test_below_the_coverage_there_are_bounds_but_no_accuracy() -> None:
    evaluation = evaluation_of(_0="", _1="", _2="dent")
    with pytest.raises(EvaluationError, match="2 of 30 examples are missing"):
        evaluation.accuracy
    assert evaluation.accuracy_bounds == (27 / 30, 29 / 30)
    assert "between 90.0% and 96.7%" in evaluation.headline
    summary = evaluation.to_dict()
    assert summary["accuracy"] is None
    assert summary["accuracy_bounds"] == [27 / 30, 29 / 30]


def test_everything_missing_is_no_number_at_all() -> None:
    evaluation = Evaluation.from_answers("silent", truth=TRUTH, answers={}, classes=CLASSES)
    assert evaluation.accuracy_bounds == (0, 1)
    with pytest.raises(EvaluationError, match="every example is missing"):
        evaluation.macro_recall
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_every_class_counts_the_same_in_macro_recall() -> None:
    truth = {f"{number}": "dent" if number < 90 else "crack" for number in range(100)}
    answers = dict.fromkeys(truth, "dent")
    evaluation = Evaluation.from_answers("majority", truth=truth, answers=answers, classes=CLASSES)
    assert evaluation.accuracy.value == 0.9
    assert evaluation.macro_recall.value == 0.5
    assert evaluation.per_class()["scratch"].n == 0


def test_answers_and_truths_must_fit() -> None:
    with pytest.raises(EvaluationError, match=r"'99\.jpg'"):
        Evaluation.from_answers("a rival", truth=TRUTH, answers={"99.jpg": "dent"}, classes=CLASSES)
    with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
        Evaluation.from_answers("a rival", truth={"1": "Dent"}, answers={}, classes=CLASSES)
    with pytest.raises(EvaluationError, match="at least one example"):
        Evaluation.from_answers("a rival", truth={}, answers={}, classes=CLASSES)


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluation:
    data = tiny_dataset(4, split=False, root=tmp_path / "photos")
    scores = {"red": -0.1, "green": -3.0, "blue": -4.0}

    def answer(example_id: str) -> Prediction:
        return Prediction(
            example_id=example_id,
            outcome="answered",
            label="red",
            scores=scores,
            raw="red",
            latency_s=0.5,
            usage=Usage(input_tokens=100, image_tokens=90, output_tokens=1),
            cost_usd=0.25,
            model_version="v1" if example_id < "green" else "v2",
        )

    return Evaluator(data).run(ScriptedPredictor(lambda example: answer(example.id)))


def test_predictions_come_back_as_they_were(evaluated: Evaluation) -> None:
    prediction = next(evaluated.predictions)
    assert prediction.scores == {"red": -0.1, "green": -3.0, "blue": -4.0}
    assert prediction.usage == Usage(input_tokens=100, image_tokens=90, output_tokens=1)
    assert len(list(evaluated.predictions)) == evaluated.num_examples
    assert str(evaluated.table["image"][0]).endswith("red/0.png")


def test_cost_versions_and_speed_are_summed_up(evaluated: Evaluation) -> None:
    assert evaluated.cost_usd == 0.25 * 12
    assert evaluated.model_versions == ("v1", "v2")
    assert evaluated.wall_s is not None
    assert evaluated.throughput == pytest.approx(12 / evaluated.wall_s)


def test_an_unknown_price_leaves_the_cost_open() -> None:
    data = tiny_dataset(4, split=False)
    priced = {"usage": Usage(input_tokens=10), "outcome": "answered", "label": "red"}

    def answer(example_id: str) -> Prediction:
        cost = 0.1 if example_id.startswith("red") else None
        return Prediction.model_validate({"example_id": example_id, "cost_usd": cost, **priced})

    evaluation = Evaluator(data).run(ScriptedPredictor(lambda example: answer(example.id)))
    assert evaluation.cost_usd is None
    assert Evaluator(data).run(ScriptedPredictor(lambda example: "red")).cost_usd is None


def test_a_file_keeps_everything(evaluated: Evaluation, tmp_path: Path) -> None:
    path = evaluated.save(tmp_path / "deep" / "evaluation.parquet")
    loaded = Evaluation.load(path)
    assert loaded.to_dict() == evaluated.to_dict()
    assert list(loaded.predictions) == list(evaluated.predictions)
    assert (loaded.task, loaded.truths) == (evaluated.task, evaluated.truths)
    assert [file.name for file in path.parent.iterdir()] == ["evaluation.parquet"]
    elsewhere = evaluation_of(_0="dent")
    assert Evaluation.load(elsewhere.save(path)).to_dict() == elsewhere.to_dict()


@pytest.mark.parametrize("content", [b"", b"id,label\n", b"PAR1 not really PAR1"])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(StorageError, match="not a saved evaluation"):
        Evaluation.load(tmp_path / "x.parquet")
    with pytest.raises(StorageError, match=r"gone\.parquet"):
        Evaluation.load(tmp_path / "gone.parquet")


def test_the_summary_is_plain_json(evaluated: Evaluation) -> None:
    summary = json.loads(json.dumps(evaluated.to_dict(), allow_nan=False))
    assert set(summary["accuracy"]) == {"value", "low", "high", "n", "method"}
    assert summary["per_class"]["red"]["n"] == 4
    assert summary["fingerprints"]["task"] == evaluated.task.fingerprint  # type: ignore[union-attr]


def test_it_shows_itself(evaluated: Evaluation, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated.show()
    shown = capsys.readouterr().out
    assert "accuracy 33.3 %" in shown
    assert "the model changed on the way: v1, v2" in shown
    assert "possibly billed" not in shown
    replace(evaluated, possibly_billed=3).show()
    assert "possibly billed: 3 calls that broke off" in capsys.readouterr().out
    assert repr(evaluated).startswith("Evaluation('scripted': 33.3 %")
    assert isinstance(evaluated.plot(), Figure)
    frame = evaluation_of(_0="", _1="crack").frame()
    assert frame["right"].sum() == 28
    assert frame["right"].isna().sum() == 1
