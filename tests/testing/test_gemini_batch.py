"""The fake's batch jobs and files, through the real client and by hand."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from google import genai
from google.genai import errors, types

from vlm_tune.testing import BatchFault, FakeGeminiServer


@pytest.fixture
def server() -> Iterator[FakeGeminiServer]:
    with FakeGeminiServer(lambda request: request.prompt[::-1]) as server:
        yield server


def client_of(server: FakeGeminiServer) -> genai.Client:
    options = types.HttpOptions(base_url=server.url, api_version="v1beta", timeout=5000)
    return genai.Client(api_key="key", vertexai=False, http_options=options)


def asked(*words: str) -> list[types.InlinedRequest]:
    return [
        types.InlinedRequest(
            contents=[types.Content(role="user", parts=[types.Part(text=word)])], metadata={"key": word}
        )
        for word in words
    ]


def texts(job: types.BatchJob) -> list[tuple[str, str | None]]:
    assert job.dest is not None and job.dest.inlined_responses is not None
    return [
        ((item.metadata or {}).get("key", "?"), item.response.text if item.response else None)
        for item in job.dest.inlined_responses
    ]


def ended(server: FakeGeminiServer, *words: str) -> types.BatchJob:
    with client_of(server) as client:
        begun = client.batches.create(model="m", src=asked(*words), config={"display_name": "mine"})
        assert begun.name is not None
        return client.batches.get(name=begun.name)


def test_a_job_takes_its_time_and_then_has_its_answers(server: FakeGeminiServer) -> None:
    job = ended(server, "ab", "cd")
    assert (job.display_name, job.state, job.model) == ("mine", types.JobState.JOB_STATE_SUCCEEDED, "models/m")
    assert texts(job) == [("ab", "ba"), ("cd", "dc")]
    assert server.batches.num_billed == 2
    with FakeGeminiServer("x", batch_delay_s=60) as slow:
        assert ended(slow, "ab").state == types.JobState.JOB_STATE_RUNNING
        assert slow.batches.num_billed == 0


@pytest.mark.parametrize(
    ("fault", "state", "keys"),
    [
        ("duplicated", "SUCCEEDED", ["a", "b", "c", "a", "b", "c"]),
        ("missing", "SUCCEEDED", ["b", "c"]),
        ("reordered", "SUCCEEDED", ["c", "b", "a"]),
        ("strangers", "SUCCEEDED", ["nobody", "a", "b", "c"]),
        ("no_keys", "SUCCEEDED", ["?", "?", "?"]),
        ("partial", "PARTIALLY_SUCCEEDED", ["a", "b"]),
        ("item_errors", "SUCCEEDED", ["a", "b", "c"]),
    ],
)
def test_answers_are_spoilt_on_schedule(fault: BatchFault, state: str, keys: list[str]) -> None:
    with FakeGeminiServer("x", batch_faults=[fault]) as server:
        spoilt, good = ended(server, "a", "b", "c"), ended(server, "a", "b", "c")
    assert spoilt.state is not None and spoilt.state.value == f"JOB_STATE_{state}"
    assert [key for key, _ in texts(spoilt)] == keys
    assert [text for _, text in texts(spoilt)].count(None) == (fault == "item_errors")
    assert [key for key, _ in texts(good)] == ["a", "b", "c"]


@pytest.mark.parametrize("fault", ["failed", "expired", "cancelled"])
def test_a_job_can_end_without_answers(fault: BatchFault) -> None:
    with FakeGeminiServer("x", batch_faults=[fault]) as server:
        job = ended(server, "a")
    assert job.state is not None and job.state.value == f"JOB_STATE_{fault.upper()}"
    assert job.dest is None
    assert server.batches.num_billed == 0


def test_files_go_up_in_pieces_and_come_down_whole(server: FakeGeminiServer, tmp_path: Path) -> None:
    text = "x" * 200_000
    request = {"contents": [{"parts": [{"text": text}]}], "generation_config": {"seed": 3}}
    lines = [{"key": str(number), "request": request} for number in range(50)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert path.stat().st_size > 8 * 1024 * 1024
    there = types.HttpOptions(base_url=server.url)
    with client_of(server) as client:
        file = client.files.upload(file=path, config=types.UploadFileConfig(mime_type="jsonl", http_options=there))
        assert file.name is not None
        assert server.batches.files[file.name] == path.read_bytes()
        begun = client.batches.create(model="m", src=file.name)
        job = client.batches.get(name=begun.name or "")
        assert job.dest is not None and job.dest.file_name is not None
        answers = [json.loads(line) for line in client.files.download(file=job.dest.file_name).splitlines()]
        assert [answer["key"] for answer in answers] == [line["key"] for line in lines]
        assert answers[0]["response"]["candidates"][0]["content"]["parts"] == [{"text": text[::-1]}]
        client.files.delete(name=file.name)
        assert server.batches.files == {}
        with pytest.raises(errors.ClientError, match="404"):
            client.batches.create(model="m", src=file.name)


def test_jobs_are_listed_page_by_page_the_newest_first(server: FakeGeminiServer) -> None:
    with client_of(server) as client:
        for number in range(5):
            client.batches.create(model="m", src=asked("a"), config={"display_name": f"job {number}"})
        listed = [job.display_name for job in client.batches.list(config={"page_size": 2})]
    assert listed == [f"job {number}" for number in reversed(range(5))]


def test_a_running_job_can_be_cancelled_and_an_ended_one_not() -> None:
    with FakeGeminiServer("x", batch_faults=["never_ends"]) as server, client_of(server) as client:
        first = ended(server, "a")
        assert first.state == types.JobState.JOB_STATE_RUNNING
        client.batches.cancel(name=first.name or "")
        assert client.batches.get(name=first.name or "").state == types.JobState.JOB_STATE_CANCELLED
        second = ended(server, "a")
        with pytest.raises(errors.ClientError, match="FAILED_PRECONDITION"):
            client.batches.cancel(name=second.name or "")


def test_a_creation_can_fail_before_and_after_the_job_is_there() -> None:
    with FakeGeminiServer("x", batch_faults=["busy", "rejected", "reset"]) as server, client_of(server) as client:
        for message in ("429", "400", "peer closed"):
            with pytest.raises(Exception, match=message):
                client.batches.create(model="m", src=asked("a"), config={"display_name": "mine"})
        assert [job.display_name for job in server.batches.jobs] == ["mine"]
        assert list(client.batches.list()) == []
        assert [job.display_name for job in client.batches.list()] == ["mine"]


@pytest.mark.parametrize("path", ["/v1beta/batches/9", "/v1beta/files/9:download", "/v1beta/tunings"])
def test_what_is_not_there_is_not_found(server: FakeGeminiServer, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as missing:
        urllib.request.urlopen(server.url + path, timeout=5)
    missing.value.close()
