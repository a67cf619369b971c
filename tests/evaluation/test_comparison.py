"""The verdict, on the published figures and on everything that must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor, tiny_dataset

CLASSES = ("crack", "dent")


def side(name: str, rights: str, *, classes: tuple[str, ...] = CLASSES, prefix: str = "") -> Evaluation:
    """Return an evaluation from one letter per example: r(ight), w(rong), u(nparseable), m(issing)."""
    words = {"r": "dent", "w": "crack", "u": "hm"}
    ids = [f"{prefix}{number}.jpg" for number in range(len(rights))]
    answers = {i: words[letter] for i, letter in zip(ids, rights, strict=True) if letter != "m"}
    return Evaluation.from_answers(name, truth=dict.fromkeys(ids, "dent"), answers=answers, classes=classes)


def compare(wins: int, losses: int, both_right: int, both_wrong: int, **options: float) -> Comparison:
    candidate = "r" * wins + "w" * losses + "r" * both_right + "w" * both_wrong
    reference = "w" * wins + "r" * losses + "r" * both_right + "w" * both_wrong
    return Comparison(candidate=side("tuned", candidate), reference=side("Gemini", reference), **options)


def test_the_published_head_to_head() -> None:
    result = compare(10, 4, 77, 7)
    assert (result.wins, result.losses, result.both_right, result.both_wrong, result.n) == (10, 4, 77, 7, 98)
    assert result.candidate_accuracy.percent() == "88.8 % [81.0, 93.6]"
    assert result.reference_accuracy.percent() == "82.7 % [74.0, 88.9]"
    assert result.difference.points() == "+6.1 points [-1.5, +14.4]"
    assert (round(result.p_value, 3), round(result.mid_p_value, 3)) == (0.180, 0.118)
    assert result.verdict == "not_established"
    assert result.images_needed is not None
    assert 310 <= result.images_needed <= 325
    assert result.sentence == (
        "tuned is 6.1 points ahead of Gemini, 95 % interval [-1.5, +14.4], exact McNemar p = 0.180: "
        "not established. At this rate of disagreement about 320 test images would be needed for 80 % power."
    )


@pytest.mark.parametrize(
    ("counts", "verdict", "sentence"),
    [
        (
            (20, 2, 70, 6),
            "better",
            "tuned is 18.4 points ahead of Gemini, 95 % interval [+10.1, +27.8], exact McNemar p < 0.001: better.",
        ),
        (
            (2, 20, 70, 6),
            "worse",
            "tuned is 18.4 points behind Gemini, 95 % interval [-27.8, -10.1], exact McNemar p < 0.001: worse.",
        ),
        (
            (5, 5, 1900, 90),
            "equivalent",
            "tuned is level with Gemini, 95 % interval [-0.4, +0.4], exact McNemar p = 1.000: equivalent. The interval "
            "lies within 3 points.",
        ),
        (
            (3, 3, 80, 12),
            "not_established",
            "tuned is level with Gemini, 95 % interval [-6.0, +6.0], exact McNemar p = 1.000: not established. At this "
            "rate of disagreement no number is enough for 80 % power.",
        ),
        (
            (100, 0, 0, 0),
            "better",
            "tuned is 100.0 points ahead of Gemini, 95 % interval [+92.6, +100.0], exact McNemar p < 0.001: better.",
        ),
    ],
)
def test_verdicts_and_their_sentences(counts: tuple[int, int, int, int], verdict: str, sentence: str) -> None:
    result = compare(*counts)
    assert (result.verdict, result.sentence) == (verdict, sentence)


def test_a_significant_difference_is_never_called_equivalent() -> None:
    result = compare(30, 5, 9000, 965, margin=0.05)
    assert result.difference.high < 0.05
    assert result.verdict == "better"


def test_margin_and_level_can_be_set() -> None:
    assert compare(5, 5, 90, 0).verdict == "not_established"
    assert compare(5, 5, 90, 0, margin=0.1).verdict == "equivalent"
    strict = compare(10, 4, 77, 7, alpha=0.01)
    assert strict.difference.low < compare(10, 4, 77, 7).difference.low
    assert "99 % interval" in strict.sentence
    with pytest.raises(EvaluationError, match="fractions"):
        compare(1, 1, 1, 1, margin=3)


@given(st.lists(st.sampled_from("rwum"), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_swapping_the_sides_mirrors_the_result(letters: list[str], random: object) -> None:
    other = list(letters)
    random.shuffle(other)  # type: ignore[attr-defined]
    left, right = side("a", "".join(letters) + "r"), side("b", "".join(other) + "r")
    one, two = Comparison(candidate=left, reference=right), Comparison(candidate=right, reference=left)
    assert (one.wins, one.losses, one.n, one.n_missing) == (two.losses, two.wins, two.n, two.n_missing)
    assert one.n + one.n_missing == len(letters) + 1
    assert one.wins + one.losses + one.both_right + one.both_wrong == one.n == len(one.tags)
    assert one.difference.low == pytest.approx(-two.difference.high, abs=1e-8)
    assert one.p_value == two.p_value
    mirrored = {"better": "worse", "worse": "better"}
    assert one.verdict == mirrored.get(two.verdict, two.verdict)


def test_every_example_has_its_tag_whatever_the_order() -> None:
    candidate = side("a", "rrwwum")
    reference = Evaluation.from_answers(
        "b",
        truth=dict(reversed(candidate.truths.items())),
        answers={
            "0.jpg": "dent",
            "1.jpg": "crack",
            "2.jpg": "dent",
            "3.jpg": "crack",
            "4.jpg": "dent",
            "5.jpg": "dent",
        },
        classes=CLASSES[::-1],
    )
    result = Comparison(candidate=candidate, reference=reference)
    assert result.tags == {
        "0.jpg": "both_right",
        "1.jpg": "candidate_only",
        "2.jpg": "reference_only",
        "3.jpg": "both_wrong",
        "4.jpg": "reference_only",
    }
    assert result.n_missing == 1


def test_too_many_missing_establish_nothing() -> None:
    result = Comparison(candidate=side("a", "r" * 90 + "m" * 10), reference=side("b", "w" * 100))
    assert result.p_value < 1e-9
    assert result.verdict == "not_established"
    assert "Only 90 of 100 examples were answered by both." in result.sentence
    (delta,) = result.class_deltas
    assert delta.adjusted_p < 1e-9
    assert delta.verdict == "not_established"


def test_what_does_not_fit_is_refused_with_the_first_ids() -> None:
    left = side("a", "rrr")
    with pytest.raises(EvaluationError, match=r"other examples; only a has '0\.jpg', '1\.jpg'"):
        Comparison(candidate=left, reference=side("b", "rrr", prefix="x"))
    with pytest.raises(EvaluationError, match=r"other examples; only b has '3\.jpg'"):
        Comparison(candidate=left, reference=side("b", "rrrr"))
    with pytest.raises(EvaluationError, match="other classes; only b has 'scratch'"):
        Comparison(candidate=left, reference=side("b", "rrr", classes=(*CLASSES, "scratch")))
    other = Evaluation.from_answers("b", truth={**left.truths, "1.jpg": "crack"}, answers={}, classes=CLASSES)
    with pytest.raises(EvaluationError, match=r"other truths for '1\.jpg'"):
        Comparison(candidate=left, reference=other)
    with pytest.raises(EvaluationError, match="no answered example in common"):
        Comparison(candidate=left, reference=side("b", "mmm"))


def evaluate(data: Dataset, name: str) -> Evaluation:
    return Evaluator(data).run(ScriptedPredictor(lambda example: example.label, name=name))


def test_other_pixels_under_the_same_names_are_refused() -> None:
    left, right = (tiny_dataset(3, split=False, seed=seed) for seed in (0, 1))
    assert left.ids == right.ids
    with pytest.raises(EvaluationError, match=r"saw other images for 'red/0\.png'"):
        Comparison(candidate=evaluate(left, "a"), reference=evaluate(right, "b"))


def test_another_prompt_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_dataset(3, split=False)
    reworded = Dataset(data.examples, task=Task(prompt="Colour?", classes=data.task.classes))
    result = Comparison(candidate=evaluate(data, "a"), reference=evaluate(reworded, "b"))
    assert not result.same_task
    result.show()
    assert "not asked in the same words" in capsys.readouterr().out


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    result = compare(10, 4, 77, 7, margin=0.05)
    loaded = Comparison.load(result.save(tmp_path / "comparison.parquet"))
    assert loaded.to_dict() == result.to_dict()
    assert loaded.tags == result.tags
    assert loaded.candidate.to_dict() == result.candidate.to_dict()
    with pytest.raises(StorageError, match="not a saved evaluation"):
        Evaluation.load(tmp_path / "comparison.parquet")


def test_it_shows_itself(capsys: pytest.CaptureFixture[str]) -> None:
    result = compare(10, 4, 77, 7)
    result.show()
    shown = capsys.readouterr().out
    assert "10 wins" in shown
    assert "not established" in shown
    assert isinstance(result.plot(), Figure)
    assert list(result.frame()["tag"]).count("candidate_only") == 10
    json.dumps(result.to_dict(), allow_nan=False)
