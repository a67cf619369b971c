"""A system that is put forward and does not beat a linear probe is told so, and one that does is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vlm_tune.evaluation import Comparison, ComparisonMatrix, Evaluation
from vlm_tune.report import Report
from vlm_tune.report.notes import notes
from vlm_tune.report.words import p_value

CLASSES = ["crack", "dent"]
TRUTH = {f"{n}.jpg": CLASSES[n % 2] for n in range(200)}


def evaluated(name: str, right: int, *, start: int = 0, failed: bool = False) -> Evaluation:
    wrong = dict(zip(CLASSES, CLASSES[::-1], strict=True))
    ids = list(TRUTH)
    chosen = {ids[(start + n) % 200] for n in range(right)}
    answers = {} if failed else {key: label if key in chosen else wrong[label] for key, label in TRUTH.items()}
    return Evaluation.from_answers(name, truth=TRUTH, answers=answers, classes=CLASSES)


PROBE = evaluated("linear probe on pixels", 130)


@pytest.mark.parametrize(
    ("right", "start", "words"),
    [
        (190, 0, None),
        (140, 30, "is not shown to be better than"),
        (130, 0, "is as good as, and no better than,"),
        (50, 0, "is worse than"),
    ],
)
def test_the_note_follows_the_verdict(right: int, start: int, words: str | None) -> None:
    found = notes([PROBE, evaluated("tuned", right, start=start)], [])
    if words is None:
        assert found == []
        return
    [note] = found
    assert str(note).startswith("N001 linear-probe-not-beaten: tuned (")
    assert words in note.text


def test_the_candidates_of_comparisons_are_what_is_put_forward() -> None:
    base, tuned = evaluated("base", 20), evaluated("tuned", 195)
    rival = evaluated("rival", 30)
    better = Comparison(candidate=tuned, reference=base)
    assert notes([PROBE, base, tuned, rival], [better]) == []
    assert [note.code for note in notes([PROBE, base, tuned, rival], [])] == ["N001"]
    assert notes([base, tuned, rival], []) == []


def test_what_all_pairs_together_do_not_establish_is_told() -> None:
    systems = [evaluated(name, right) for name, right in (("a", 100), ("b", 101), ("c", 102), ("tuned", 108))]
    by_itself = Comparison(candidate=systems[3], reference=systems[1])
    assert (by_itself.wins, by_itself.losses, by_itself.verdict) == (7, 0, "better")
    [note] = notes(systems, [by_itself], ComparisonMatrix(systems))
    assert str(note) == (
        "N002 not-sure-among-all-pairs: that tuned is better than b (exact McNemar p = 0.016) is not established among "
        f"all 6 pairs of systems (Holm, {p_value(ComparisonMatrix(systems).cell('tuned', 'b').adjusted_p)})."
    )
    sure = Comparison(candidate=systems[3], reference=evaluated("d", 60))
    assert notes(systems, [sure], ComparisonMatrix(systems)) == []
    assert notes(systems, [sure], ComparisonMatrix([systems[3], sure.reference])) == []


def test_baselines_and_what_cannot_be_compared_get_no_note() -> None:
    assert notes([PROBE], []) == []
    assert notes([PROBE, evaluated("random guess", 30)], []) == []
    assert notes([PROBE, evaluated("tuned", 0, failed=True)], []) == []
    others = {f"other {name}": label for name, label in TRUTH.items()}
    elsewhere = Evaluation.from_answers("tuned", truth=others, answers=others, classes=CLASSES)
    assert notes([PROBE, elsewhere], []) == []


def test_the_report_says_it_on_its_page_and_in_its_json(tmp_path: Path) -> None:
    report = Report([PROBE, evaluated("tuned", 140, start=30)])
    page = report.save(tmp_path / "report.html")
    assert "N001 linear-probe-not-beaten" in page.read_text()
    [note] = json.loads((tmp_path / "report.json").read_text())["notes"]
    assert (note["code"], note["name"]) == ("N001", "linear-probe-not-beaten")
