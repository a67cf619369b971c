"""Labels put right move every system, and the verdicts with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.audit.conftest import CLASSES, Planted
from vlm_tune.audit import LabelAudit, Rescored, Ruling, Rulings
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Evaluation


def ruled(audit: LabelAudit, labels: dict[str, str]) -> Rulings:
    sheet = audit.sheet(suspects=20, controls=5)
    found = [
        Ruling(example_id=name, label=audit[name].label, ruling="relabel", new_label=labels[name])
        if name in labels
        else Ruling(example_id=name, label=audit[name].label, ruling="keep")
        for name in sheet.order
    ]
    return Rulings(sheet=sheet, rulings=tuple(found))


@pytest.fixture
def close() -> LabelAudit:
    """Two systems, the second right about ten photos whose label is wrong."""
    truth = {f"{at:02d}.jpg": CLASSES[at % 3] for at in range(60)}
    wrong = [name for name in truth if truth[name] == "dent"][:10]
    base = Evaluation.from_answers("base", truth=truth, answers=truth, classes=CLASSES)
    said = truth | dict.fromkeys(wrong, "crack")
    return LabelAudit([base, Evaluation.from_answers("tuned", truth=truth, answers=said, classes=CLASSES)])


def test_a_verdict_turns_when_the_labels_do(
    close: LabelAudit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {one.example_id: "crack" for one in close.ranking[:10]}
    rescored = close.rescore(ruled(close, wrong))
    [change] = rescored.changes
    assert (change.before.verdict, change.after.verdict) == ("worse", "better")
    assert change.changed
    assert "tuned against base: worse became better; -16.7 points" in rescored.sentence
    assert rescored.frame().loc["tuned", ["before", "after"]].tolist() == pytest.approx([50 / 60, 1.0])
    # Nothing was changed where it came from.
    assert close.evaluations[1].accuracy.value == pytest.approx(50 / 60)
    rescored.show()
    assert "worse became better" in " ".join(capsys.readouterr().out.split())
    assert len(rescored.plot().axes[0].get_yticks()) == 4
    loaded = Rescored.load(rescored.save(tmp_path / "rescored.parquet"))
    assert loaded.sentence == rescored.sentence
    assert repr(loaded) == "Rescored(2 systems, 10 labels put right)"


def test_without_a_change_it_says_so(close: LabelAudit) -> None:
    rescored = close.rescore(ruled(close, {}))
    assert rescored.sentence.endswith("No verdict changes.")
    assert not rescored.changes[0].changed
    assert "still worse" in rescored.changes[0].sentence


def test_an_audit_of_data_alone_has_nobody_to_score(planted: Planted) -> None:
    audit = LabelAudit(data=planted.data, embedder=planted.embedder, cross_validate=0)
    with pytest.raises(EvaluationError, match="no system to score again"):
        audit.rescore(ruled(audit, {}))
