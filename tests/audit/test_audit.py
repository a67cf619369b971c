"""Planted errors come first, evidence adds up, and what does not fit together is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import vlm_tune as vt
from tests.audit.conftest import CLASSES, TASK, Planted, plant
from vlm_tune.audit import LabelAudit
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Evaluation
from vlm_tune.images import blank
from vlm_tune.leakage import Copies, LeakPair
from vlm_tune.predictors import Predictor
from vlm_tune.records import Example
from vlm_tune.testing import ScriptedPredictor


@pytest.fixture(scope="module")
def audit(planted: Planted, systems: list[Evaluation]) -> LabelAudit:
    return LabelAudit(systems, data=planted.data, embedder=planted.embedder)


def first(audit: LabelAudit, count: int) -> set[str]:
    return {one.example_id for one in audit.ranking[:count]}


def test_planted_errors_come_first_in_both_splits(audit: LabelAudit, planted: Planted) -> None:
    top = first(audit, len(planted.wrong))
    assert len(top & planted.wrong) >= 5
    assert {planted.data.splits[name] for name in top} == {"train", "test"}
    found = audit.ranking[0]
    assert found.suggestion == planted.true[found.example_id]
    assert not found.agreed
    assert audit.expected_wrong == pytest.approx(6, abs=3)
    assert {one.example_id for one in audit.suspects} <= first(audit, 12)


def test_every_witness_is_heard_and_the_evidence_adds_up(audit: LabelAudit, planted: Planted) -> None:
    in_test = next(one for one in audit.ranking if planted.data.splits[one.example_id] == "test")
    in_train = next(one for one in audit.ranking if planted.data.splits[one.example_id] == "train")
    classifiers = {"nearest photos", "least squares", "logistic regression"}
    assert set(in_test.answers) == {"base", "tuned", *classifiers}
    assert set(in_train.answers) == classifiers
    for one in audit.ranking:
        assert sum(one.neighbours.values()) == 10
        # With three classes, wrong may be either of two, so that the odds exceed those of the likelier one.
        assert sum(one.evidence.values()) <= one.log_odds + 1e-6
        assert sum(one.evidence.values()) > one.log_odds - 0.7


def test_evaluations_alone_are_enough(systems: list[Evaluation], planted: Planted) -> None:
    audit = LabelAudit(systems)
    in_test = {name for name in planted.wrong if planted.data.splits[name] == "test"}
    assert len(first(audit, len(in_test)) & in_test) >= len(in_test) - 1
    assert len(audit.ranking) == 45
    assert audit.ranking[0].vote_margin is None
    assert "2 of 2 disagree" in audit.ranking[0].reason


def test_a_copy_with_another_label_counts_and_copies_do_not_vote(planted: Planted) -> None:
    clean = [name for name in planted.data.ids if name not in planted.wrong]
    a = next(name for name in clean if planted.true[name] == "crack")
    b = next(name for name in clean if planted.true[name] == "dent")
    pair = LeakPair(
        a_id=a, a_split=None, a_label="crack", b_id=b, b_split=None, b_label="dent", tier="near_copy", similarity=1.0
    )
    copies = Copies(embedder="x", num_examples=90, pairs=(pair,), groups=((a, b),), conflicts=(pair,))
    without = LabelAudit(data=planted.data, embedder=planted.embedder)
    audit = LabelAudit(data=planted.data, embedder=planted.embedder, leakage=copies)
    assert audit[a].copies == {b: "dent"}
    assert "a copy says dent" in audit[a].reason
    assert audit[a].log_odds > without[a].log_odds
    assert a not in audit.agreed


def test_one_that_is_trained_for_each_fold_is_asked_about_the_others(planted: Planted) -> None:
    asked: list[tuple[int, int]] = []

    def train(part: Dataset) -> Predictor:
        def answer(example: Example) -> str:
            assert example.id not in part.ids
            return planted.true[example.id]

        asked.append((len(part), 90 - len(part)))
        return ScriptedPredictor(answer, name="mine")

    audit = LabelAudit(data=planted.data, embedder=planted.embedder, cross_validate=3, trained_by=train)
    assert asked == [(60, 30)] * 3
    assert first(audit, 6) == planted.wrong
    assert all(one.answers["mine, out of fold"] == planted.true[one.example_id] for one in audit.ranking)


def test_without_folds_there_are_neighbours_only(planted: Planted) -> None:
    audit = LabelAudit(data=planted.data, embedder=planted.embedder, cross_validate=0)
    assert set(audit.ranking[0].answers) == {"nearest photos"}


def test_photos_of_a_group_do_not_vote_for_each_other() -> None:
    planted = plant(num=30, wrong=2, group=lambda at: f"part {at // 6}")
    audit = LabelAudit(data=planted.data, embedder=planted.embedder, cross_validate=2)
    assert {sum(one.neighbours.values()) for one in audit.ranking} == {10}
    lonely = plant(num=30, wrong=2, group=lambda at: "one part" if at < 24 else None)
    audit = LabelAudit(data=lonely.data, embedder=lonely.embedder, cross_validate=2)
    assert sum(audit["000.jpg"].neighbours.values()) == 6


def test_where_several_classes_may_apply_each_is_judged_by_itself() -> None:
    truth = {f"{at}.jpg": ("crack, dent", "crack", "dent", "none")[at % 4] for at in range(40)}
    said = truth | {"1.jpg": "crack, dent", "2.jpg": "none"}
    task = {"classes": ("crack", "dent"), "multi_label": True}
    systems = [Evaluation.from_answers(name, truth=truth, answers=said, **task) for name in ("a", "b")]  # type: ignore[arg-type]
    audit = LabelAudit(systems)
    assert first(audit, 2) == {"1.jpg", "2.jpg"}
    assert {one.suggestion for one in audit.ranking[:2]} == {"crack, dent", "none"}
    assert audit["0.jpg"].agreed


def test_annotators_who_disagreed_make_a_label_doubtful(planted: Planted) -> None:
    tied = next(one for one in planted.data if one.id not in planted.wrong)
    examples = [
        one.model_copy(update={"metadata": {"vote_margin": 0.0}}) if one.id == tied.id else one for one in planted.data
    ]
    data = Dataset(examples, task=TASK, splits=planted.data.splits)
    plain = LabelAudit(data=planted.data, embedder=planted.embedder)
    assert LabelAudit(data=data, embedder=planted.embedder)[tied.id].log_odds > plain[tied.id].log_odds + 1


def test_it_has_the_face_of_every_result(
    audit: LabelAudit, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.show()
    assert "candidates, no verdicts" in capsys.readouterr().out
    frame = audit.frame()
    assert list(frame["example_id"]) == [one.example_id for one in audit.ranking]
    assert {"base: answer", "least squares: evidence", "vote_margin"} <= set(frame.columns)
    assert audit.plot(most=5).axes
    loaded = LabelAudit.load(audit.save(tmp_path / "audit.parquet"))
    assert loaded.ranking == audit.ranking
    assert loaded.fingerprint == audit.fingerprint
    assert [one.name for one in loaded.evaluations] == ["base", "tuned"]
    assert loaded.evaluations[0].accuracy == audit.evaluations[0].accuracy
    assert repr(audit) == f"LabelAudit(90 photos, {len(audit.suspects)} suspects)"
    only_data = LabelAudit(data=planted.data, embedder=planted.embedder, cross_validate=0)
    assert LabelAudit.load(only_data.save(tmp_path / "data.parquet")).ranking == only_data.ranking
    assert vt.LabelAudit is LabelAudit


def test_a_photo_that_cannot_be_read_is_left_out(planted: Planted) -> None:
    broken = Example(id="broken.jpg", image=b"no photo", label="crack")
    data = Dataset([*planted.data, broken], task=TASK)
    audit = LabelAudit(data=data, embedder=planted.embedder, cross_validate=0)
    assert list(audit.unreadable) == ["broken.jpg"]
    assert len(audit.ranking) == 90


def test_what_is_not_an_audit_is_not_loaded(tmp_path: Path, systems: list[Evaluation]) -> None:
    with pytest.raises(StorageError, match="not a saved label audit"):
        LabelAudit.load(systems[0].save(tmp_path / "evaluation.parquet"))


def answers(name: str, truth: dict[str, str], classes: Sequence[str] = CLASSES) -> Evaluation:
    return Evaluation.from_answers(name, truth=truth, answers=truth, classes=classes)


TRUTH = {f"{at}.jpg": CLASSES[at % 3] for at in range(12)}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([], "nothing to audit"),
        ([answers("a", TRUTH), answers("a", TRUTH)], "a is there twice"),
        ([answers("a", TRUTH), answers("b", TRUTH | {"x.jpg": "dent"})], "b is about other photos; .* 'x.jpg'"),
        ([answers("a", TRUTH | {"x.jpg": "dent"}), answers("b", TRUTH)], "b is about other photos; it has no 'x.jpg'"),
        (
            [answers("a", TRUTH), answers("b", TRUTH | {"0.jpg": "dent"})],
            "b was measured with other labels for '0.jpg'",
        ),
        ([answers("a", TRUTH), answers("b", TRUTH, (*CLASSES, "rust"))], "b answered another question"),
        ([answers("a", dict(list(TRUTH.items())[:3]))], "3 photos are too few"),
    ],
)
def test_evaluations_that_do_not_fit_together_are_refused(others: list[Evaluation], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        LabelAudit(others)


def test_evaluations_of_photos_that_the_data_lacks_are_refused(planted: Planted) -> None:
    with pytest.raises(EvaluationError, match=r"a is about other photos; data has no '0\.jpg'"):
        LabelAudit([answers("a", TRUTH)], data=planted.data, embedder=planted.embedder)
    with pytest.raises(EvaluationError, match="2 or more, or 0"):
        LabelAudit(data=planted.data, cross_validate=1)
    few = [Example(id=f"{at}", image=b"none", label=CLASSES[at % 3]) for at in range(6)]
    with pytest.raises(EvaluationError, match="only 0 of 6 photos can be read"):
        LabelAudit(data=Dataset(few, task=TASK), embedder=planted.embedder)


def test_a_handful_of_photos_is_enough_to_run() -> None:
    examples = [Example(id=f"{at}", image=blank(8 + at, 8), label=CLASSES[at % 2]) for at in range(4)]

    def embed(photos: Sequence[bytes]) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(photos), 3))

    audit = LabelAudit(data=Dataset(examples, task=TASK), embedder=embed)
    assert len(audit.ranking) == 4
    assert all(0 < one.suspicion < 1 for one in audit.ranking)
