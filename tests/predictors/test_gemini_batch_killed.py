"""Killed with -9 at every step: afterwards there is one job, and every example has one outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from vlm_tune import images
from vlm_tune.evaluation import Evaluator
from vlm_tune.predictors import BatchOptions, Gemini
from vlm_tune.testing import FakeGeminiServer, tiny_dataset

DATA = tiny_dataset(1, split=False)
NUM_STEPS = 11
ASK = BatchOptions(poll_s=0.02, longest_poll_s=0.02, settle_s=0.1)
HERE = Path(__file__)

# One process imports everything, then forks a run for every moment, which kills itself there.
DRIVER = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from google.genai import types
from tests.predictors.test_gemini_batch_killed import run
from vlm_tune.journal import Journal
from vlm_tune.predictors.gemini_batch_jobs import BatchJobs
from vlm_tune.predictors.gemini_batch_state import JobFolder

STEPS = {BatchJobs: ("_source", "_ask", "look", "collect"), JobFolder: ("save", "remove"), Journal: ("append",)}

def die_before(moment):
    passed = [0]
    def deadly(plain):
        def step(*args, **kwargs):
            passed[0] += 1
            if passed[0] == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(*args, **kwargs)
        return step
    for owner, names in STEPS.items():
        for name in names:
            setattr(owner, name, deadly(getattr(owner, name)))

ends = []
for moment, url, folder, inline_mb in json.loads(sys.argv[2]):
    child = os.fork()
    if child == 0:
        die_before(moment)
        run(url, folder, inline_mb)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(ends))
"""


def run(url: str, folder: str, inline_mb: float) -> float:
    """Evaluate in batch and return the accuracy."""
    options = ASK.model_copy(update={"max_inline_mb": inline_mb})
    predictor = Gemini("gemini-3-flash-preview", api_key="key", base_url=url, batch=options)
    return Evaluator(DATA, run_dir=folder).run(predictor).accuracy.value


@pytest.mark.parametrize(
    ("inline_mb", "moments"),
    [
        # The first answer is kept; a record, its requests, the record again, the job, the record with the job's name;
        # looks at it, its results; two answers are kept; the record goes.
        pytest.param(10.0, (1, 2, 4, 5, 6, 7, 8, 9, 11, 12), id="inline"),
        pytest.param(0.0, (4, 5, 6), id="file"),
    ],
)
def test_a_kill_at_any_step_costs_no_second_job_and_no_answer(
    tmp_path: Path, inline_mb: float, moments: Sequence[int]
) -> None:
    labels = {images.encode(e.image, max_pixels=DATA.task.max_pixels).data: e.label for e in DATA}
    with ExitStack() as stack:
        servers = [stack.enter_context(FakeGeminiServer(lambda request: labels[request.image])) for _ in moments]
        folders = [tmp_path / str(moment) for moment in moments]
        trials = [
            (moment, server.url, str(folder), inline_mb)
            for moment, server, folder in zip(moments, servers, folders, strict=True)
        ]
        command = [sys.executable, "-c", DRIVER, str(HERE.parents[2]), json.dumps(trials)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        assert json.loads(done.stdout) == [-9 if moment <= NUM_STEPS else 0 for moment in moments]
        for server, folder in zip(servers, folders, strict=True):
            assert run(server.url, str(folder), inline_mb) == 1.0
            check(server, folder)


def check(server: FakeGeminiServer, folder: Path) -> None:
    """One job for every example but those asked online, one line in the journal for each, nothing paid twice."""
    asked = [
        request["contents"][-1]["parts"][0]["inlineData"]["data"]
        for job in server.batches.jobs
        for _, request in job.items
    ]
    assert len(server.batches.jobs) == 1
    assert len(set(asked)) == len(asked) == server.batches.num_billed
    # An answer that was on its way when the process died is the only one that can be paid for twice.
    assert len(DATA) <= server.batches.num_billed + server.num_billed <= len(DATA) + 1
    [journal] = (folder / "predictions").glob("*.jsonl")
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]
    assert len(set(keys)) == len(keys) == len(DATA)
