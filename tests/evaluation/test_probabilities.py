"""From an evaluation's scores to arrays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.scored import CLASSES, many_labels, scored
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.probabilities import has_probabilities, probabilities


def test_one_class_a_photo() -> None:
    evaluation = scored("tuned", 50)
    found = probabilities(evaluation)
    first = next(evaluation.predictions)
    assert first.scores is not None
    assert found.classes[0] == pytest.approx([np.exp(first.scores[label]) for label in CLASSES])
    assert found.confidence == pytest.approx(found.classes.max(axis=1))
    assert found.right.mean() == pytest.approx(evaluation.accuracy.value)
    assert found.decisions.shape == found.decided_right.shape == (50, 1)


def test_several_classes_a_photo() -> None:
    evaluation = many_labels("tuned", 50)
    found = probabilities(evaluation)
    assert found.decisions.shape == found.decided_right.shape == (50, 3)
    assert found.confidence == pytest.approx(np.maximum(found.classes, 1 - found.classes).min(axis=1))
    assert found.right.mean() == pytest.approx(evaluation.accuracy.value)


@pytest.mark.parametrize("evaluation", [scored("tuned", 40, sharp=3), many_labels("tuned", 40)])
def test_a_temperature_moves_probabilities_and_no_answer(evaluation: object) -> None:
    found = probabilities(evaluation)  # type: ignore[arg-type]
    same, warm, hot = found.at(1.0), found.at(2.0), found.at(1e6)
    assert same.classes == pytest.approx(found.classes)
    assert (warm.decisions <= found.decisions + 1e-12).all()
    assert hot.classes == pytest.approx(0.5 if found.multi_label else 1 / 3, abs=1e-3)
    assert (warm.right == found.right).all()


def test_answers_without_probabilities_are_left_out() -> None:
    evaluation = scored("tuned", 20)
    scores = evaluation.table["scores"].to_pylist()
    table = evaluation.table.set_column(
        evaluation.table.column_names.index("scores"), "scores", [[None, *scores[1:-1], None]]
    )
    some = type(evaluation).restore(table, evaluation.about())
    assert has_probabilities(some)
    assert list(probabilities(some).rows) == list(range(1, 19))
    silent = scored("Gemini", with_scores=False)
    assert not has_probabilities(silent)
    with pytest.raises(EvaluationError, match="Gemini gave no probabilities"):
        probabilities(silent)
