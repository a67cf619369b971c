"""Sheets come back: what was ruled is read, and every slip is refused by its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.audit.conftest import CLASSES, Planted
from vlm_tune.audit import LabelAudit, Rulings
from vlm_tune.audit.rulings import cell
from vlm_tune.errors import DataError, EvaluationError, StorageError
from vlm_tune.evaluation import Evaluation

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def audit(systems: list[Evaluation]) -> LabelAudit:
    return LabelAudit(systems)


@pytest.fixture
def filled(audit: LabelAudit, tmp_path: Path) -> Callable[[Callable[[Rows], None]], Path]:
    """Write a review of 5 suspects and 6 controls and let a function fill in its rows."""

    def fill(change: Callable[[Rows], None]) -> Path:
        path = audit.review(tmp_path / "review.html", suspects=5, controls=6).with_suffix(".csv")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["example_id", "ruling", "sheet"])
            writer.writeheader()
            writer.writerows(rows)
        return path

    return fill


def by_truth(planted: Planted) -> Callable[[Rows], None]:
    def rule(rows: Rows) -> None:
        for row in rows:
            true = planted.true[row["example_id"]]
            row["ruling"] = "keep" if row["label"] == true else "relabel"
            row["new_label"] = "" if row["label"] == true else true

    return rule


def test_a_sheet_mixes_suspects_and_controls_and_says_not_which(audit: LabelAudit) -> None:
    sheet = audit.sheet(suspects=5, controls=6, seed=3)
    assert sheet.suspects == tuple(one.example_id for one in audit.ranking[:5])
    assert len(set(sheet.controls) & set(audit.agreed)) == 6
    assert not set(sheet.controls) & set(sheet.suspects)
    assert sorted(sheet.order) == sorted([*sheet.suspects, *sheet.controls])
    assert set(sheet.order[:5]) != set(sheet.suspects)
    assert audit.sheet(suspects=5, controls=6, seed=3) == sheet
    assert audit.sheet(suspects=5, controls=6, seed=4).controls != sheet.controls
    with pytest.raises(EvaluationError, match="needs photos"):
        audit.sheet(suspects=0, controls=0)


def test_rulings_come_back_with_what_they_are_worth(
    audit: LabelAudit, planted: Planted, filled: Callable[[Callable[[Rows], None]], Path], tmp_path: Path
) -> None:
    rulings = audit.rulings(filled(by_truth(planted)))
    assert not rulings.pending
    assert set(rulings.labels) == planted.wrong & set(rulings.sheet.order)
    assert planted.data.relabel(rulings.labels).by_id(next(iter(rulings.labels))).label in CLASSES
    assert rulings.wrong_suspects.n == 5
    assert rulings.wrong_suspects.value == len(rulings.labels) / 5
    assert (rulings.wrong_controls.value, rulings.wrong_controls.n) == (0.0, 6)
    assert "wrong labels among the" in rulings.sentence
    assert rulings.frame()["control"].sum() == 6
    assert Rulings.load(rulings.save(tmp_path / "rulings.json")) == rulings
    rulings.show()


def test_a_sheet_half_filled_is_read_as_far_as_it_goes(
    audit: LabelAudit, filled: Callable[[Callable[[Rows], None]], Path]
) -> None:
    def some(rows: Rows) -> None:
        rows[0]["ruling"] = "Keep "
        rows[1]["ruling"] = "unsure"
        rows[2]["note"] = "later"
        del rows[-1]

    rulings = audit.rulings(filled(some))
    assert [one.ruling for one in rulings.rulings] == ["keep", "unsure"]
    assert len(rulings.pending) == 9
    assert rulings.labels == {}
    assert "2 of 11 photos ruled on, 1 unsure." in rulings.sentence


def test_json_and_semicolons_are_read_too(audit: LabelAudit, tmp_path: Path) -> None:
    page = audit.review(tmp_path / "review.html", suspects=2, controls=1)
    table = page.with_suffix(".csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["ruling"] = "keep"
    (tmp_path / "rulings.json").write_text(json.dumps({"rulings": rows}), encoding="utf-8")
    assert len(audit.rulings(tmp_path / "rulings.json").rulings) == 3
    table.write_text("\ufeff" + table.read_text().replace(",", ";"), encoding="utf-8")
    assert len(audit.rulings(table).pending) == 3


def test_another_audit_of_the_same_photos_reads_it_but_not_one_of_other_labels(
    audit: LabelAudit, systems: list[Evaluation], planted: Planted, filled: Callable[[Callable[[Rows], None]], Path]
) -> None:
    path = filled(by_truth(planted))
    assert LabelAudit(systems).rulings(path) == audit.rulings(path)
    wider = LabelAudit(systems, data=planted.data, embedder=planted.embedder, cross_validate=0)
    with pytest.raises(DataError, match="photos or labels differ"):
        wider.rulings(path)
    with pytest.raises(EvaluationError, match="photos or labels differ"):
        wider.rescore(audit.rulings(path))


def set_first(**values: str) -> Callable[[Rows], None]:
    return lambda rows: rows[0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_first(example_id="who.jpg", ruling="keep"), "line 2: 'who.jpg' is not on this sheet"),
        (lambda rows: rows.append(rows[0]), "line 13: .* is there already, on .*line 2"),
        (set_first(ruling="maybe"), "line 2: the ruling is one of keep, relabel, unsure, not 'maybe'"),
        (set_first(ruling="relabel"), "relabel needs a new_label"),
        (set_first(new_label="dent"), "the ruling is one of"),
        (set_first(ruling="keep", new_label="dent"), "keep has no new_label"),
        (set_first(ruling="relabel", new_label="dnt"), "line 2: label 'dnt' .* did you mean 'dent'"),
        (lambda rows: rows[0].update(ruling="relabel", new_label=rows[0]["label"]), "is what the label says"),
        (set_first(label="rust"), "the label was .* and not 'rust'"),
        (set_first(sheet="mine"), "must say the same in every row"),
        (lambda rows: [row.update(sheet="mine") for row in rows], "must say the same in every row"),
        (lambda rows: rows.clear(), "has no rulings"),
        (lambda rows: [row.pop("ruling") for row in rows], "has no column 'ruling'"),
    ],
)
def test_slips_are_refused_by_their_line(
    audit: LabelAudit, filled: Callable[[Callable[[Rows], None]], Path], change: Callable[[Rows], None], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        audit.rulings(filled(change))


def test_files_that_hold_nothing_are_refused(audit: LabelAudit, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        audit.rulings(tmp_path / "missing.csv")
    (tmp_path / "odd.json").write_text("[1]")
    with pytest.raises(DataError, match="holds no rulings"):
        audit.rulings(tmp_path / "odd.json")
    with pytest.raises(StorageError, match="is not a saved list of rulings"):
        (tmp_path / "other.json").write_text("{}")
        Rulings.load(tmp_path / "other.json")


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-1", "@x", "\tx", "'=1", "''-1", "'quoted'", "plain.jpg"])
def test_no_cell_is_a_formula_and_every_name_comes_back(name: str, tmp_path: Path) -> None:
    assert cell(name)[0] not in "=+-@\t\r"
    truth = {f"{at}.jpg": CLASSES[at % 3] for at in range(6)} | {name: "dent"}
    audit = LabelAudit([Evaluation.from_answers("a", truth=truth, answers=truth, classes=CLASSES)])
    path = audit.review(tmp_path / "review.html", suspects=7, controls=0).with_suffix(".csv")
    assert name in audit.rulings(path).pending
