"""Exact match, F1 and the classes one by one, where several may apply; and what single classes share of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import f1_score, multilabel_confusion_matrix

from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, TaskError, UnknownLabelError
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.records import Example, Prediction
from vlm_tune.statistics import f1_scores, wilson
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

TASK = Task(prompt="What is damaged?", classes=("crack", "dent", "scratch"), multi_label=True)
RNG = np.random.default_rng(0)
TRUE = RNG.random((60, 3)) < 0.4
SAID = TRUE ^ (RNG.random((60, 3)) < 0.15)


def labels(table: np.ndarray) -> dict[str, list[str]]:
    return {f"{n}.jpg": [TASK.classes[at] for at in np.flatnonzero(row)] for n, row in enumerate(table)}


def evaluation_of(table: np.ndarray, name: str = "a rival", **changed: str | list[str]) -> Evaluation:
    answers = labels(table) | {f"{key[1:]}.jpg": value for key, value in changed.items()}
    given = {key: value for key, value in answers.items() if value != "missing"}
    return Evaluation.from_answers(name, truth=labels(TRUE), answers=given, classes=TASK.classes, multi_label=True)


def test_the_numbers_are_scikit_learns() -> None:
    evaluation = evaluation_of(SAID)
    exact = (TRUE == SAID).all(axis=1)
    assert evaluation.accuracy == wilson(int(exact.sum()), 60)
    assert (evaluation.measure, evaluation.chance) == ("exact match", 1 / 8)
    assert evaluation.micro_f1.value == pytest.approx(f1_score(TRUE, SAID, average="micro"))
    assert evaluation.macro_f1.value == pytest.approx(f1_score(TRUE, SAID, average="macro"))
    assert (evaluation.micro_f1, evaluation.macro_f1) == (f1_scores(TRUE, SAID).micro, f1_scores(TRUE, SAID).macro)
    np.testing.assert_array_equal(evaluation.class_counts(), multilabel_confusion_matrix(TRUE, SAID))
    for place, (label, recall) in enumerate(evaluation.per_class().items()):
        assert label == TASK.classes[place]
        assert recall == wilson(int((TRUE & SAID)[:, place].sum()), int(TRUE[:, place].sum()))
        assert evaluation.class_scores()[label].recall == recall


def test_no_class_is_mistaken_for_another_so_there_is_no_confusion_matrix() -> None:
    with pytest.raises(EvaluationError, match=r"no confusion matrix; class_counts\(\)"):
        evaluation_of(SAID).confusion()
    assert isinstance(evaluation_of(SAID).plot(), Figure)


def test_answers_count_in_any_spelling_of_the_list() -> None:
    assert evaluation_of(TRUE).accuracy.value == 1
    spelled = labels(TRUE) | {key: ",".join(reversed(value)) or "none" for key, value in labels(TRUE).items()}
    rival = Evaluation.from_answers("x", truth=spelled, answers=spelled, classes=TASK.classes, multi_label=True)
    assert rival.truths == evaluation_of(SAID).truths
    assert rival.accuracy.value == 1


def test_what_is_no_list_of_classes_is_wrong_and_what_is_missing_is_left_out() -> None:
    evaluation = evaluation_of(TRUE, _0="rust", _1=["dent", "rust"], _2="missing", _3="crack, none")
    assert dict(evaluation.outcomes) == {"answered": 56, "unparseable": 3, "refused": 0, "failed": 1}
    assert evaluation.accuracy == wilson(56, 59)
    counts = evaluation.class_counts()
    assert counts.sum(axis=(1, 2)).tolist() == [59, 59, 59]
    np.testing.assert_array_equal(counts[:, 1, 0], TRUE[[0, 1, 3]].sum(axis=0))
    assert not counts[:, 0, 1].any()
    assert next(evaluation.predictions).raw == "rust"


def test_truths_must_be_lists_of_classes() -> None:
    given = {"answers": {}, "classes": TASK.classes}
    with pytest.raises(UnknownLabelError, match=r"truth of '1': label 'dents' .*did you mean 'dent'"):
        Evaluation.from_answers("x", truth={"1": ["dents"]}, multi_label=True, **given)
    with pytest.raises(UnknownLabelError, match="truth of '1'"):
        Evaluation.from_answers("x", truth={"1": "dent, Crack"}, multi_label=True, **given)
    with pytest.raises(EvaluationError, match="pass multi_label=True"):
        Evaluation.from_answers("x", truth={"1": ["dent", "crack"]}, **given)
    with pytest.raises(TaskError, match="reads like part of a list"):
        Evaluation.from_answers("x", truth={"1": "a"}, answers={}, classes=("a, b", "c"), multi_label=True)


def test_photos_of_a_group_are_not_counted_as_independent() -> None:
    def evaluation(groups: list[str | None]) -> Evaluation:
        examples = [
            Example(id=f"{n}.jpg", image=b"%d" % n, label=TASK.join(names), group=groups[n])
            for n, names in enumerate(labels(TRUE.repeat(2, axis=0)).values())
        ]
        said = dict(enumerate(labels(SAID.repeat(2, axis=0)).values()))
        script = ScriptedPredictor(lambda one: TASK.join(said[int(one.id[:-4])]))
        return Evaluator(Dataset(examples, task=TASK)).run(script)

    alone, paired = evaluation([None] * 120), evaluation([f"car {n // 2}" for n in range(120)])
    mixed = evaluation([None] * 60 + [f"car {n // 2}" for n in range(60)])
    for score in ("micro_f1", "macro_f1"):
        widths = [getattr(one, score).high - getattr(one, score).low for one in (alone, mixed, paired)]
        assert widths == sorted(widths)
        assert widths[2] > 1.25 * widths[0]
    assert alone.micro_f1.value == paired.micro_f1.value == evaluation_of(SAID).micro_f1.value


def test_the_evaluator_takes_answers_in_the_tasks_order_only() -> None:
    examples = [Example(id=f"{n}.jpg", image=b"%d" % n, label=TASK.answers[n]) for n in range(8)]
    data = Dataset(examples, task=TASK)
    oracle = ScriptedPredictor(lambda one: " and ".join(reversed(one.label.split(", "))))
    evaluation = Evaluator(data).run(oracle)
    assert evaluation.accuracy == wilson(8, 8)
    assert evaluation.multi_label
    assert evaluation.micro_f1.value == 1
    assert 0.4 < evaluation.micro_f1.low < 1

    def answered(one: Example) -> Prediction:
        return Prediction(example_id=one.id, outcome="answered", label="dent, crack")

    with pytest.raises(EvaluationError, match="'dent, crack' is no list of classes in the task's order"):
        Evaluator(data).run(ScriptedPredictor(answered, name="unordered"))


def test_a_file_and_the_summary_keep_everything(tmp_path: Path) -> None:
    evaluation = evaluation_of(SAID, _2="missing", _5="rust")
    loaded = Evaluation.load(evaluation.save(tmp_path / "evaluation.parquet"))
    summary = json.loads(json.dumps(loaded.to_dict(), allow_nan=False))
    assert summary == evaluation.to_dict()
    assert summary["multi_label"] is True
    assert summary["confusion"] is None
    assert summary["micro_f1"]["method"] == "indirect Wilson 95%, clustered by photo"
    assert summary["class_scores"]["dent"]["precision"]["value"] == loaded.class_scores()["dent"].precision.value
    assert np.array(summary["class_counts"]).shape == (3, 2, 2)


def test_it_shows_itself(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation_of(SAID).show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "exact match" in shown
    assert "micro F1" in shown
    assert "precision" in shown
    assert evaluation_of(SAID, _2="missing").frame()["right"].isna().sum() == 1


def test_a_photo_without_a_class_is_right_when_nothing_is_named() -> None:
    truth = {"1": "none", "2": "none"}
    evaluation = Evaluation.from_answers("x", truth=truth, answers=truth, classes=("a", "b"), multi_label=True)
    assert evaluation.accuracy.value == 1
    assert evaluation.micro_f1.n == evaluation.macro_f1.n == 0
    with pytest.raises(EvaluationError, match="none has a class"):
        evaluation.macro_recall
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_single_classes_have_macro_f1_and_their_micro_f1_is_the_accuracy() -> None:
    truth = {f"{n}": "dent" if n < 70 else "crack" for n in range(100)}
    answers = {f"{n}": "dent" if n < 80 else "hm" if n < 85 else "crack" for n in range(100)}
    evaluation = Evaluation.from_answers("x", truth=truth, answers=answers, classes=("crack", "dent"))
    assert evaluation.micro_f1 == evaluation.accuracy == wilson(85, 100)
    expected = f1_score(list(truth.values()), list(answers.values()), labels=["crack", "dent"], average="macro")
    assert evaluation.macro_f1.value == pytest.approx(expected)
    assert evaluation.class_counts().tolist() == [[[70, 0], [15, 15]], [[20, 10], [0, 70]]]
    assert evaluation.confusion().tolist() == [[15, 10, 5], [0, 70, 0]]
    assert evaluation.measure == "accuracy"


def test_comparisons_are_about_the_exact_match() -> None:
    candidate, reference = evaluation_of(TRUE, "tuned", _0="rust"), evaluation_of(SAID, "base")
    comparison = Comparison(candidate=candidate, reference=reference)
    exact = (TRUE == SAID).all(axis=1)
    assert comparison.losses == int(exact[0])
    assert comparison.wins == int((~exact[1:]).sum())
    assert comparison.verdict == "better"
    assert comparison.tags["1.jpg"] == ("both_right" if exact[1] else "candidate_only")


def test_sides_that_were_asked_otherwise_are_not_compared() -> None:
    truth = dict.fromkeys(("1", "2"), "dent")

    def side(classes: tuple[str, ...], multi_label: bool) -> Evaluation:
        return Evaluation.from_answers("x", truth=truth, answers=truth, classes=classes, multi_label=multi_label)

    with pytest.raises(EvaluationError, match="only x may name several classes"):
        Comparison(candidate=side(("crack", "dent"), True), reference=side(("crack", "dent"), False))
    with pytest.raises(EvaluationError, match="in another order"):
        Comparison(candidate=side(("crack", "dent"), True), reference=side(("dent", "crack"), True))
