"""Finding jobs again on a server that is slow to tell, or does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.genai import Client, types

from vlm_tune import images
from vlm_tune.errors import PredictorError
from vlm_tune.predictors import BatchOptions, Gemini, GeminiOptions, RetryPolicy
from vlm_tune.predictors.gemini_batch_jobs import BatchJobs
from vlm_tune.predictors.gemini_batch_state import JobFolder
from vlm_tune.predictors.gemini_batch_wire import request_line
from vlm_tune.predictors.gemini_wire import generation_config, request_contents
from vlm_tune.task import Task
from vlm_tune.testing import BatchFault, FakeGeminiServer, tiny_dataset

TASK = Task(prompt="What?", classes=("red", "green"))
CONFIG = generation_config(GeminiOptions(), TASK, constrained=True)


class Bench:
    """A server, and jobs on it."""

    def __init__(self, folder: Path, *faults: BatchFault, **options: float) -> None:
        self.server = FakeGeminiServer("red", batch_faults=faults)
        self.folder = JobFolder(folder)
        self.options = BatchOptions.model_validate({"settle_s": 0.2, **options})
        self.requests = folder / "requests"
        photo = images.encode(tiny_dataset(1, split=False)[0].image, max_pixels=TASK.max_pixels)
        self.requests.write_bytes(request_line("k", request_contents(photo, TASK, constrained=True), CONFIG))

    def __enter__(self) -> Bench:
        url = self.server.__enter__().url
        retry = GeminiOptions(retry=RetryPolicy(attempts=2))
        gemini = Gemini("m", api_key="a-secret-key", base_url=url, options=retry)
        self.client: Client = gemini._client()
        self.jobs = BatchJobs(gemini, self.client, self.folder, self.options)
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()
        self.server.__exit__(None, None, None)

    def create_unknown(self, display_name: str, times: int = 1) -> None:
        for _ in range(times):
            request = types.InlinedRequest(contents="?", metadata={"key": "k"})
            self.client.batches.create(model="m", src=[request], config={"display_name": display_name})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench(tmp_path) as bench:
        yield bench


def test_a_job_is_found_by_our_name_among_many(bench: Bench) -> None:
    record = bench.folder.begin("t", ["k"])
    bench.create_unknown("somebody else's", times=60)
    bench.create_unknown(record.display_name)
    bench.create_unknown("later", times=60)
    found = bench.jobs.find(record)
    assert found is not None and found.server_name == "batches/61"
    assert bench.folder.records("t") == [found]


def test_of_two_jobs_the_older_one_counts(tmp_path: Path) -> None:
    with Bench(tmp_path, "never_ends", "never_ends") as bench:
        record = bench.folder.begin("t", ["k"])
        bench.create_unknown(record.display_name, times=2)
        found = bench.jobs.find(record)
        assert found is not None and found.server_name == "batches/1"
        assert [job.cancelled for job in bench.server.batches.jobs] == [False, True]


def test_no_job_is_certain_only_once_the_list_has_settled(bench: Bench) -> None:
    record = bench.folder.begin("t", ["k"])
    start = time.time()
    assert bench.jobs.find(record) is None
    assert time.time() - start >= 0.19
    long_ago = record.model_copy(update={"asked_s": start - 60})
    start = time.time()
    assert bench.jobs.find(long_ago) is None
    assert time.time() - start < 0.19


def test_a_server_that_lists_nothing_stops_the_run(bench: Bench) -> None:
    record = bench.folder.begin("t", ["k"])
    bench.server.batches.serve = lambda *request: (503, {}, b"a-secret-key")  # type: ignore[method-assign]
    with pytest.raises(PredictorError, match=rf"cannot tell whether batch job {record.display_name} exists") as raised:
        bench.jobs.find(record)
    assert "a-secret-key" not in str(raised.value)
    assert bench.folder.records("t") == [record]


def test_a_name_is_on_disk_before_the_server_hears_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    record = bench.folder.begin("t", ["k"])
    on_disk = []
    plain = bench.server.batches._create

    def create(model: str, batch: dict[str, object]) -> object:
        on_disk.append((batch["displayName"], bench.folder.records("t")[0].display_name))
        return plain(model, batch)

    monkeypatch.setattr(bench.server.batches, "_create", create)
    created = bench.jobs.create(record, bench.requests, CONFIG)
    assert created is not None and created.server_name == "batches/1"
    assert on_disk == [(record.display_name, record.display_name)]
    assert bench.folder.records("t") == [created]


def test_creation_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with Bench(tmp_path, "busy", "busy", "busy", "busy", "busy", "busy", deadline_s=0.5) as bench:
        assert bench.jobs.create(bench.folder.begin("t", ["k"]), bench.requests, CONFIG) is None
        assert bench.server.batches.jobs == []
        assert bench.folder.records("t") == []


def test_a_job_that_the_server_forgot_has_ended(tmp_path: Path) -> None:
    with Bench(tmp_path, "gone") as bench:
        record = bench.jobs.create(bench.folder.begin("t", ["k"]), bench.requests, CONFIG)
        assert record is not None
        look = bench.jobs.look(record)
        assert (look.state, look.ended) == ("GONE", True)
        assert bench.jobs.collect(record, look).replies == {}


def test_a_file_of_answers_that_is_gone_brings_none(tmp_path: Path) -> None:
    with Bench(tmp_path, max_inline_mb=0) as bench:
        record = bench.jobs.create(bench.folder.begin("t", ["k"]), bench.requests, CONFIG)
        assert record is not None and record.input_file in bench.server.batches.files
        look = bench.jobs.look(record)
        assert [*bench.jobs.collect(record, look).replies] == ["k"]
        bench.server.batches.jobs.clear()
        assert bench.jobs.collect(record, look).replies == {}
        bench.jobs.forget(record)
        assert bench.server.batches.files == {}
