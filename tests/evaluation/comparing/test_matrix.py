"""More than two systems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.evaluation.scored import scored
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Comparison, ComparisonMatrix, Evaluation
from vlm_tune.statistics import holm, mcnemar_exact

TRUTH = {f"{at:03}": "dent" for at in range(98)}


def side(name: str, rights: str) -> Evaluation:
    words = {"r": "dent", "w": "crack"}
    answers = {i: words[one] for i, one in zip(TRUTH, rights, strict=True) if one in words}
    return Evaluation.from_answers(name, truth=TRUTH, answers=answers, classes=["crack", "dent"])


def published(*more: Evaluation) -> ComparisonMatrix:
    tuned = side("tuned", "r" * 10 + "w" * 4 + "r" * 77 + "w" * 7)
    gemini = side("Gemini", "w" * 10 + "r" * 4 + "r" * 77 + "w" * 7)
    base = side("base", "w" * 20 + "r" * 53 + "w" * 25)
    return ComparisonMatrix([tuned, gemini, base, *more])


def test_the_published_systems() -> None:
    matrix = published()
    assert matrix.n == 98
    assert matrix.accuracies["tuned"].percent() == "88.8 % [81.0, 93.6]"
    assert matrix.p_value < 0.001
    raw = [cell.p_value for cell in matrix.cells]
    assert raw[0] == mcnemar_exact(10, 4)
    assert [cell.adjusted_p for cell in matrix.cells] == pytest.approx([max(matrix.p_value, p) for p in holm(raw)])
    assert matrix.sentence == (
        "On 98 examples 3 systems differ (Cochran's Q, p < 0.001). tuned is better than base. "
        "Gemini is better than base. Not established: tuned against Gemini."
    )


def test_a_pair_is_seen_from_both_sides() -> None:
    matrix = published()
    one, other = matrix.cell("tuned", "base"), matrix.cell("base", "tuned")
    assert (one.wins, one.losses, one.verdict) == (other.losses, other.wins, "better")
    assert other.verdict == "worse"
    assert (other.difference.low, other.difference.high) == (-one.difference.high, -one.difference.low)
    with pytest.raises(EvaluationError, match="not two of tuned, Gemini, base"):
        matrix.cell("tuned", "nobody")


def test_two_systems_are_the_comparison() -> None:
    sides = list(published().evaluations[:2])
    cell = ComparisonMatrix(sides).cell("tuned", "Gemini")
    comparison = Comparison(candidate=sides[0], reference=sides[1])
    assert (cell.difference, cell.verdict) == (comparison.difference, comparison.verdict)
    assert cell.adjusted_p == comparison.p_value


def test_a_pair_is_never_surer_than_the_whole() -> None:
    half = "rw" * 49
    alike = [side(f"{at}", half) for at in range(4)]
    odd = side("odd", "r" * 8 + half[8:])
    matrix = ComparisonMatrix([*alike, odd])
    assert all(cell.adjusted_p >= matrix.p_value for cell in matrix.cells)
    assert "Not established" in matrix.sentence
    # Systems that never differ lie within the margin.
    assert matrix.cell("0", "1").verdict == "not_established" or "Equivalent" in matrix.sentence


def test_only_what_all_answered_counts() -> None:
    gone = side("late", "m" * 10 + "r" * 88)
    matrix = published(gone)
    assert matrix.n == 88
    assert matrix.coverage == pytest.approx(88 / 98)
    # Below 95 % nothing is established.
    assert {cell.verdict for cell in matrix.cells} == {"not_established"}
    assert "Only 88 of 98 examples were answered by all, which establishes nothing about a pair." in matrix.sentence


def test_groups_widen_everything() -> None:
    plain = ComparisonMatrix([scored(name, seed=at) for at, name in enumerate("abc")])
    paired = ComparisonMatrix([scored(name, seed=at, twins=True) for at, name in enumerate("abc")])
    assert paired.q == plain.q
    assert paired.p_value != plain.p_value
    assert paired.cells[0].difference.method.endswith("clustered by group")


def test_what_is_no_matrix_is_refused() -> None:
    one = side("one", "r" * 98)
    for sides in ([one], [one, one]):
        with pytest.raises(EvaluationError, match="different names"):
            ComparisonMatrix(sides)
    with pytest.raises(EvaluationError, match="no example was answered by all"):
        ComparisonMatrix([one, side("none", "m" * 98)])
    with pytest.raises(EvaluationError, match="fractions"):
        ComparisonMatrix([one, side("two", "w" * 98)], alpha=2)


def test_it_shows_draws_and_keeps_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = published()
    matrix.show()
    assert "not established" in capsys.readouterr().out
    assert isinstance(matrix.plot(), Figure)
    assert list(matrix.frame()["verdict"]) == ["not_established", "better", "better"]
    loaded = ComparisonMatrix.load(matrix.save(tmp_path / "matrix.parquet"))
    assert loaded.to_dict() == matrix.to_dict()
    json.dumps(matrix.to_dict(), allow_nan=False)
    with pytest.raises(StorageError, match="not a saved comparison"):
        Comparison.load(tmp_path / "matrix.parquet")
