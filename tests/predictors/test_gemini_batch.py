"""Batch mode through the real client: every example ends with its own answer, whatever becomes of the job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vlm_tune import images
from vlm_tune.cost import cost_of, price_of
from vlm_tune.data import Dataset
from vlm_tune.errors import BudgetError, PredictorError, StorageError
from vlm_tune.evaluation import Evaluator
from vlm_tune.predictors import BatchOptions, Gemini, GeminiOptions, RetryPolicy
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.testing import FakeGeminiServer, GeminiRequest, tiny_dataset
from vlm_tune.testing.gemini_batch import BatchFault

QUICK = BatchOptions(poll_s=0.01, longest_poll_s=0.05, settle_s=0.1)
HOW = {"inline": 10.0, "file": 0.0}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return tiny_dataset(4, split=False)


def truth(data: Sequence[Example], task: Task) -> dict[bytes, str]:
    return {images.encode(example.image, max_pixels=task.max_pixels).data: example.label for example in data}


def knowing(data: Dataset, faults: Sequence[BatchFault | None] = (), delay_s: float = 0.0) -> FakeGeminiServer:
    """A server that answers every photo right, so that a mix-up shows."""
    labels = truth(data, data.task)
    return FakeGeminiServer(lambda request: labels[request.image], batch_faults=faults, batch_delay_s=delay_s)


def gemini(server: FakeGeminiServer, state: Path | None = None, **batch: object) -> Gemini:
    options = GeminiOptions(retry=RetryPolicy(attempts=3, first_delay_s=0.01))
    chosen = BatchOptions.model_validate({**QUICK.model_dump(), **batch})
    predictor = Gemini("gemini-3-flash-preview", api_key="key", base_url=server.url, options=options, batch=chosen)
    return predictor if state is None else predictor.with_state(state)


def right(answers: Sequence[Prediction], data: Dataset) -> bool:
    """Whether every example has one answer, and its own."""
    labels = {example.id: example.label for example in data}
    return sorted(a.example_id for a in answers) == sorted(labels) and all(
        a.label == labels[a.example_id] for a in answers
    )


@pytest.mark.parametrize("how", HOW)
def test_a_job_answers_all_but_the_first_at_half_the_price(data: Dataset, tmp_path: Path, how: str) -> None:
    with knowing(data, delay_s=0.05) as server:
        predictor = gemini(server, tmp_path, max_inline_mb=HOW[how])
        answers = list(predictor.predict(data, data.task))
    assert right(answers, data)
    assert len(server.requests) == 1
    [job] = server.batches.jobs
    assert len(job.items) == server.batches.num_billed == len(data) - 1
    assert (job.input_file is None) == (how == "inline")
    assert server.batches.files == {}
    price = price_of("gemini-3-flash-preview", on=datetime.now(UTC).date())
    assert price is not None
    for answer in answers:
        assert answer.usage is not None and answer.cost_usd is not None
        full = cost_of(answer.usage, price)
        assert answer.cost_usd == pytest.approx(full if answer.latency_s is not None else full / 2)
        assert (answer.usage.image_tokens, answer.model_version) == (258, "gemini-3-flash-preview-001")
    assert predictor.ledger.paid_usd == pytest.approx(sum(answer.cost_usd or 0.0 for answer in answers))
    assert list((tmp_path / "batch").iterdir()) == []


@pytest.mark.parametrize("how", HOW)
def test_a_job_asks_what_is_asked_online(data: Dataset, how: str) -> None:
    seen: list[GeminiRequest] = []

    def answer(request: GeminiRequest) -> str:
        seen.append(request)
        return "red"

    shots = data[:2]
    with FakeGeminiServer(answer) as server:
        predictor = gemini(server, max_inline_mb=HOW[how])
        predictor.shots = tuple(shots)
        list(predictor.predict(data[2:5], data.task))
    online, *batched = seen
    assert len(batched) == 2
    for request in batched:
        assert (request.prompt, request.choices, request.shots) == (online.prompt, online.choices, online.shots)
        assert request.config == online.config
    assert {request.image for request in seen} == set(truth(data[2:5], data.task))


SPOILT: list[tuple[BatchFault, int, int]] = [
    ("reordered", 1, 0),
    ("duplicated", 1, 0),
    ("strangers", 1, 0),
    ("reset", 1, 0),
    ("missing", 5, 4),
    ("item_errors", 5, 0),
    ("partial", 6, 5),
    ("no_keys", 12, 11),
]
BROKEN: list[tuple[BatchFault, int, int]] = [
    ("flaky", 1, 0),
    ("busy", 1, 0),
    ("failed", 12, 0),
    ("expired", 12, 0),
    ("rejected", 12, 0),
    ("cancelled", 12, 11),
    ("gone", 12, 11),
]


@pytest.mark.parametrize(
    ("fault", "num_online", "num_lost", "how"),
    [(*case, how) for case in SPOILT for how in HOW] + [(*case, "inline") for case in BROKEN],
)
def test_what_a_job_leaves_open_is_asked_online(
    data: Dataset, tmp_path: Path, fault: BatchFault, num_online: int, num_lost: int, how: str
) -> None:
    with knowing(data, [fault]) as server:
        predictor = gemini(server, tmp_path, max_inline_mb=HOW[how])
        assert right(list(predictor.predict(data, data.task)), data)
    assert len(server.requests) == num_online
    assert len(server.batches.jobs) == (fault != "rejected")
    assert predictor.possibly_billed == num_lost
    assert list((tmp_path / "batch").iterdir()) == []


def test_errors_that_the_client_cannot_read_cost_no_answer(data: Dataset) -> None:
    with knowing(data, ["unreadable"]) as server:
        assert right(list(gemini(server).predict(data, data.task)), data)
        assert len(server.requests) == len(data)
    with knowing(data, ["unreadable"]) as server:
        assert right(list(gemini(server, max_inline_mb=0).predict(data, data.task)), data)
        assert len(server.requests) == 2


def test_a_job_that_never_ends_is_cancelled_at_the_deadline(data: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    with knowing(data, ["never_ends"]) as server:
        assert right(list(gemini(server, deadline_s=0.3).predict(data, data.task)), data)
    assert server.batches.jobs[0].cancelled
    said = capsys.readouterr().err
    assert "past its deadline" in said
    assert "11 examples that no batch job answered are asked online, at the full price." in said


def test_many_examples_make_several_jobs(data: Dataset, tmp_path: Path) -> None:
    with knowing(data, ["missing"]) as server:
        assert right(list(gemini(server, max_examples=4).predict(data, data.task)), data)
    assert [len(job.items) for job in server.batches.jobs] == [4, 4, 3]
    assert len({job.display_name for job in server.batches.jobs}) == 3
    with knowing(data) as server:
        assert right(list(gemini(server, max_inline_mb=0, max_file_mb=0.012).predict(data, data.task)), data)
    assert len(server.batches.jobs) > 2
    assert all(job.input_file for job in server.batches.jobs)


def test_equal_photos_get_an_answer_each(data: Dataset) -> None:
    twins = [data[0], *(data[1].model_copy(update={"id": f"twin {number}"}) for number in range(3))]
    with knowing(data) as server:
        answers = list(gemini(server).predict(twins, data.task))
    assert sorted(answer.example_id for answer in answers) == sorted(example.id for example in twins)


def test_an_unreadable_image_fails_alone(data: Dataset) -> None:
    broken = [Example(id="gone", image=Path("/nowhere/x"), label="red"), Example(id="bad", image=b"no", label="red")]
    with knowing(data) as server:
        answers = {answer.example_id: answer for answer in gemini(server).predict([*broken, *data[:3]], data.task)}
    assert [answers[name].outcome for name in ("gone", "bad")] == ["failed", "failed"]
    assert sum(answer.outcome == "answered" for answer in answers.values()) == 3


def test_a_refused_schema_is_found_out_before_the_job(data: Dataset) -> None:
    with FakeGeminiServer("red", refuse_schema=True) as server:
        answers = list(gemini(server).predict(data, data.task))
    assert {answer.label for answer in answers} == {"red"}
    assert server.batches.num_billed == len(data) - 1


def test_a_wrong_key_makes_no_job(data: Dataset) -> None:
    with FakeGeminiServer("red", api_key="another") as server, pytest.raises(PredictorError, match="API key not valid"):
        list(gemini(server).predict(data, data.task))
    assert server.batches.jobs == []


def test_several_classes_come_back_as_a_list(data: Dataset) -> None:
    task = Task(prompt="Which?", classes=("red", "green", "blue"), multi_label=True)
    with FakeGeminiServer('["blue", "red"]') as server:
        answers = list(gemini(server).predict(data[:3], task))
    assert {answer.label for answer in answers} == {"red, blue"}


def test_without_a_run_folder_a_job_is_cancelled_when_nobody_waits(data: Dataset) -> None:
    with knowing(data, [None, "never_ends"], delay_s=0.1) as server:
        answers = gemini(server, max_examples=6).predict(data, data.task)
        next(answers), next(answers)
        answers.close()  # type: ignore[attr-defined]
    assert [job.cancelled for job in server.batches.jobs] == [False, True]


def test_an_open_job_is_taken_up_by_the_next_run(data: Dataset, tmp_path: Path) -> None:
    with knowing(data, delay_s=0.2) as server:
        evaluator = Evaluator(data, run_dir=tmp_path)
        stopped = gemini(server).with_state(tmp_path / "state" / gemini(server).fingerprint).predict(data, data.task)
        next(stopped), next(stopped)
        stopped.close()  # type: ignore[attr-defined]
        renamed = Dataset([e.model_copy(update={"id": f"new {e.id}"}) for e in data], task=data.task)
        evaluation = Evaluator(renamed, run_dir=tmp_path).run(gemini(server))
        assert evaluation.accuracy.value == 1.0
        again = evaluator.run(gemini(server))
    assert again.accuracy.n == len(data)
    assert len(server.batches.jobs) == 1
    assert server.batches.num_billed == len(data) - 1


def test_the_budget_is_kept_by_asking_in_rounds(data: Dataset) -> None:
    options = GeminiOptions(max_output_tokens=20, max_cost_usd=0.002)
    with knowing(data) as server:
        predictor = gemini(server)
        predictor.options = options
        assert right(list(predictor.predict(data, data.task)), data)
    sizes = [len(job.items) for job in server.batches.jobs]
    assert len(sizes) > 1 and sum(sizes) == len(data) - 1
    with knowing(data) as server:
        predictor = gemini(server)
        predictor.options = options.model_copy(update={"max_cost_usd": 0.0008})
        answers: list[Prediction] = []
        with pytest.raises(BudgetError, match="max_output_tokens") as stopped:
            answers.extend(predictor.predict(data, data.task))
    assert 0 < len(answers) < len(data)
    assert stopped.value.num_left == len(data) - len(answers)
    assert stopped.value.spent_usd == pytest.approx(sum(answer.cost_usd or 0.0 for answer in answers))
    assert stopped.value.spent_usd <= 0.0008


def test_a_record_that_is_none_is_named(data: Dataset, tmp_path: Path) -> None:
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "x.batch.json").write_text(json.dumps({"keys": 3}))
    with knowing(data) as server, pytest.raises(StorageError, match=r"x\.batch\.json is not the record"):
        list(gemini(server, tmp_path).predict(data, data.task))
    assert server.requests == []


def test_batch_changes_no_fingerprint(data: Dataset) -> None:
    with knowing(data) as server:
        online = Gemini("gemini-3-flash-preview", api_key="k", base_url=server.url)
        batched = Gemini("gemini-3-flash-preview", api_key="k", base_url=server.url, batch=True)
    assert batched.batch == BatchOptions()
    assert online.fingerprint == batched.fingerprint
