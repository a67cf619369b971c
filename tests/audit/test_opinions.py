"""What a system said becomes log-probabilities: its own, or what its answers were worth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.audit.conftest import CLASSES, TASK, Planted
from vlm_tune.audit.opinions import Coding, opinion_of
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.records import Prediction
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor


def test_answers_without_probabilities_are_worth_what_they_were_on_other_photos() -> None:
    truth = {f"{at}": CLASSES[at % 2] for at in range(10)}
    said = dict.fromkeys(truth, "crack") | {"9": "rust"}
    evaluation = Evaluation.from_answers("always crack", truth=truth, answers=said, classes=CLASSES)
    coding = Coding(TASK)
    labels = coding.encode(list(truth.values()))
    opinion = opinion_of(evaluation, coding, {name: at for at, name in enumerate(truth)}, labels)
    shares = np.exp(opinion.scores[0])
    # Nine said crack: five are cracks and four dents; each photo is left out of its own count.
    assert shares[0] == pytest.approx(np.array([4 + 1 / 3, 4 + 1 / 3, 1 / 3]) / 9)
    assert shares[1] == pytest.approx(np.array([5 + 1 / 3, 3 + 1 / 3, 1 / 3]) / 9)
    # What is no class is no opinion.
    assert opinion.answers()[0][0, 9] == -1


def test_probabilities_are_taken_as_they_are(planted: Planted) -> None:
    shares = {"crack": 0.7, "dent": 0.2, "scratch": 0.1}
    logs = {name: math.log(share) for name, share in shares.items()}
    sure = ScriptedPredictor(
        lambda one: Prediction(example_id=one.id, outcome="answered", label="crack", scores=logs), name="sure"
    )
    evaluation = Evaluator(planted.data.test).run(sure)
    coding, ids = Coding(TASK), planted.data.ids
    labels = coding.encode([example.label for example in planted.data])
    opinion = opinion_of(evaluation, coding, {name: at for at, name in enumerate(ids)}, labels)
    assert np.exp(opinion.scores[0, 1]) == pytest.approx([0.7, 0.2, 0.1], abs=1e-5)
    answers, probabilities = opinion.answers()
    assert answers[0, 1] == 0
    assert probabilities[0, 1] == pytest.approx(0.7, abs=1e-5)
    # Photos of the training split were not asked about.
    assert answers[0, 0] == -1


def test_several_classes_are_a_question_each() -> None:
    task = Task(prompt="?", classes=("crack", "dent"), multi_label=True)
    coding = Coding(task)
    assert coding.encode(["crack, dent", "none", "dent"]).tolist() == [[1, 0, 0], [1, 0, 1]]
    assert coding.decode([0, 1]) == "dent"
    assert coding.decode([0, 0]) == "none"
    truth = {"1": "crack", "2": "none", "3": "crack, dent"}
    evaluation = Evaluation.from_answers("same", truth=truth, answers=truth, classes=task.classes, multi_label=True)
    opinion = opinion_of(evaluation, coding, {"1": 0, "2": 1, "3": 2}, coding.encode(list(truth.values())))
    assert opinion.scores.shape == (2, 3, 2)
