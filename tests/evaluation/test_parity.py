"""Two sides on the same examples: where they agree, where they do not, and by how much."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vlm_tune import demo
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Evaluation, Evaluator, ServingParity, serving_parity
from vlm_tune.predictors import OpenAICompatible, OpenAIOptions
from vlm_tune.records import Example, Prediction
from vlm_tune.statistics import wilson
from vlm_tune.testing import FakeOpenAIServer, OpenAIRequest, ScriptedPredictor, tiny_dataset
from vlm_tune.vlm import VLM


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_dataset(4, split=False)


def sure(example: Example, label: str, share: float) -> Prediction:
    others = dict.fromkeys(("red", "green", "blue"), (1 - share) / 2)
    scores = {name: math.log(chance) for name, chance in (others | {label: share}).items()}
    return Prediction(example_id=example.id, outcome="answered", label=label, scores=scores)


def test_the_same_answers_agree(data: Dataset) -> None:
    oracle = ScriptedPredictor(lambda example: example.label)
    parity = serving_parity(oracle, ScriptedPredictor(lambda example: example.label, name="served"), data)
    assert parity.agreement == wilson(12, 12)
    assert parity.differences == ()
    assert parity.largest_gap is None
    assert parity.sentence.startswith(
        "served (served) answers like scripted (local) on 12 of 12 examples: 100.0 % [75.8"
    )


def test_what_differs_is_listed_with_leads_and_gaps(data: Dataset) -> None:
    local = ScriptedPredictor(lambda example: sure(example, example.label, 0.6), name="local")
    turned = data.ids[1]

    def other(example: Example) -> Prediction:
        return sure(example, "blue" if example.id == turned else example.label, 0.5)

    parity = serving_parity(local, ScriptedPredictor(other, name="served"), data)
    assert parity.agreement == wilson(11, 12)
    [difference] = parity.differences
    assert (difference.example_id, difference.local, difference.served) == (turned, "red", "blue")
    assert difference.lead == pytest.approx(0.6 - 0.2)
    assert difference.score_gap == pytest.approx(0.6 - 0.25)
    assert parity.largest_gap == pytest.approx(0.35)
    assert "by more than 0.350" in parity.sentence
    assert "leads the next by up to 0.400" in parity.sentence
    assert parity.frame()["score_gap"].drop(1).to_numpy() == pytest.approx(np.full(11, 0.1))


def test_outcomes_count_and_failures_do_not(data: Dataset) -> None:
    first, second, third, fourth = data.ids[:4]
    local = ScriptedPredictor(dict.fromkeys(data.ids, "red") | {second: "hm", third: "what"}, name="local")
    refused = Prediction(example_id=fourth, outcome="refused")
    served = ScriptedPredictor(
        {i: "red" for i in data.ids if i != first} | {second: "pardon", third: "red", fourth: refused}, name="served"
    )
    parity = serving_parity(local, served, data)
    assert (parity.n_missing, parity.agreement) == (1, wilson(9, 11))
    assert [(one.example_id, one.local, one.served) for one in parity.differences] == [
        (third, "unparseable", "red"),
        (fourth, "red", "refused"),
    ]
    assert "1 examples are left out" in parity.sentence


def test_scores_on_one_side_give_leads_and_no_gaps(data: Dataset) -> None:
    local = ScriptedPredictor(lambda example: sure(example, example.label, 0.6), name="local")
    parity = serving_parity(local, ScriptedPredictor(lambda example: "red", name="served"), data)
    assert len(parity.differences) == 8
    assert {round(one.lead or 0, 3) for one in parity.differences} == {0.4}
    assert {one.score_gap for one in parity.differences} == {None}
    assert parity.largest_gap is None


def test_evaluations_may_have_other_orders(data: Dataset) -> None:
    backwards = Dataset(list(data)[::-1], task=data.task.model_copy(update={"classes": data.task.classes[::-1]}))
    predictor = ScriptedPredictor(lambda example: sure(example, example.label, 0.7))
    local, served = Evaluator(data).run(predictor), Evaluator(backwards).run(predictor)
    parity = ServingParity(local=local, served=served)
    assert (parity.agreement.value, parity.largest_gap) == (1.0, 0.0)


def test_sides_that_do_not_fit_are_refused(data: Dataset) -> None:
    oracle = ScriptedPredictor(lambda example: example.label)
    other = tiny_dataset(4, split=False, seed=1)
    with pytest.raises(EvaluationError, match="saw other images"):
        ServingParity(local=Evaluator(data).run(oracle), served=Evaluator(other).run(oracle))
    with pytest.raises(EvaluationError, match="no answered example in common"):
        serving_parity(oracle, ScriptedPredictor({}, name="silent"), data)


def test_several_classes_agree_as_lists() -> None:
    truth = {"1": "a, b", "2": "none", "3": "b"}
    sides = [
        Evaluation.from_answers(name, truth=truth, answers=answers, classes=["a", "b"], multi_label=True)
        for name, answers in (("local", truth), ("served", truth | {"3": "a, b"}))
    ]
    parity = ServingParity(local=sides[0], served=sides[1])
    assert [(one.local, one.served) for one in parity.differences] == [("b", "a, b")]


def test_it_is_saved_shown_and_loaded(data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = ScriptedPredictor(lambda example: sure(example, example.label, 0.6), name="[b]local")
    parity = serving_parity(local, ScriptedPredictor(lambda example: "red", name="served"), data)
    loaded = ServingParity.load(parity.save(tmp_path / "parity.parquet"))
    assert loaded.to_dict() == parity.to_dict()
    assert json.loads(json.dumps(parity.to_dict()))["agreement"]["n"] == 12
    loaded.show()
    shown = capsys.readouterr().out
    assert "Answered differently" in shown
    assert "[b]local" in shown
    assert data.ids[4] in shown
    with pytest.raises(StorageError, match="not a saved serving parity"):
        ServingParity.load(parity.local.save(tmp_path / "local.parquet"))


def test_a_real_model_behind_a_server_answers_like_itself(data: Dataset) -> None:
    local = VLM(str(demo.model_path()))

    def answer(request: OpenAIRequest) -> str:
        assert request.prompt == data.task.render()
        [prediction] = local.predict([Example(id="asked", image=request.image, label="red")], data.task)
        return prediction.label or ""

    with FakeOpenAIServer(answer) as server:
        one_at_a_time = OpenAIOptions(concurrency=1)
        parity = serving_parity(local, OpenAICompatible(server.url, "served", options=one_at_a_time), data)
    assert parity.agreement == wilson(12, 12)
    assert all(prediction.scores for prediction in parity.local.predictions)


def test_a_run_folder_keeps_both_sides(data: Dataset, tmp_path: Path) -> None:
    oracle = ScriptedPredictor(lambda example: example.label, name="local")
    with FakeOpenAIServer("red", first_tokens={"red": 0.5, "green": 0.3, "blue": 0.2}) as server:
        served = OpenAICompatible(server.url, "damage")
        for _ in range(2):
            parity = serving_parity(oracle, served, data, run_dir=tmp_path)
    assert parity.agreement == wilson(4, 12)
    assert len(oracle.asked) == len(server.requests) == 12
