"""Two real processes on the CPU: the answers of one, each photo asked once, and an end when one of them fails."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import vlm_tune as vt
from tests import models
from tests.processes import Ran, launch
from vlm_tune.testing import FakeGeminiServer, ScriptedPredictor, tiny_dataset

TASK = vt.Task(prompt="What kind of damage does this photo show?", classes=("crack", "dent", "scratch"))

SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import vlm_tune as vt
from vlm_tune import _processes
from vlm_tune.errors import EvaluationError, PredictorError, StorageError
from vlm_tune.journal import Journal
from vlm_tune.testing import ScriptedPredictor, tiny_dataset
from vlm_tune.vlm import model, sharding

root, url, rank = Path(sys.argv[1]), sys.argv[2], int(os.environ["RANK"])
task = vt.Task(**json.loads(sys.argv[3]))
data = vt.Dataset.from_folder(root / "photos", task=task)

def keep(name, predictor, run_dir=None):
    found = vt.Evaluator(data, run_dir=run_dir, min_coverage=0.5).run(predictor)
    found.save(root / f"{name}-{rank}.parquet")

base = vt.VLM(root / "model")
adapter = vt.Adapter.load(root / "fit" / "adapter", base=base)
keep("base", base, root / "two")
keep("adapter", adapter)
keep("resumed", base, root / "stopped")
keep("gemini", vt.Gemini("gemini-3-flash-preview", api_key="key", base_url=url), root / "two")

sharding.too_large = model.too_large = lambda base: _processes.world_size() > 1
keep("spread", base, root / "spread")
keep("spread adapter", adapter)
sharding.too_large = model.too_large = lambda base: False

class Script(ScriptedPredictor):
    asked_by = "each"

facts = []
squares = tiny_dataset(100, split=False)
def tried(predictor, examples=squares.examples, run_dir=None):
    try:
        vt.Evaluator(vt.Dataset(examples, task=squares.task), run_dir=run_dir).run(predictor)
    except vt.errors.VlmTuneError as error:
        facts.append([type(error).__name__, str(error), len(predictor.asked)])

def fail(example):
    if rank == 1:
        return PredictorError("the second process has no tongue")
    time.sleep(0.1)
    return example.label

oracle = lambda example: example.label
tried(Script(fail))
tried(Script(oracle), squares.examples[::-1 if rank else 1])
tried(Script(oracle), run_dir=root / f"apart-{rank}")

append = Journal.append
def fill_up(self, *args, **kwargs):
    if len(self) == 5:
        raise StorageError("no space left")
    append(self, *args, **kwargs)
Journal.append = fill_up
in_step = Script(oracle)
in_step.asked_by = "all"
tried(in_step, run_dir=root / "full")
Journal.append = append
(root / f"facts-{rank}").write_text(json.dumps(facts))

def die(example):
    with (root / "asked").open("a") as log:
        log.write(example.id + "\\n")
    if rank == 1 and len(killed.asked) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return example.label

killed = Script(die, name="oracle")
vt.Evaluator(squares, run_dir=root / "killed").run(killed)
"""


def photo(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an adapter of it, and photos of many sizes; one is there twice and one is no photo."""
    folder = tmp_path_factory.mktemp("several")
    models.tiny_qwen3_vl(folder / "model")
    for index in range(23):
        label = TASK.classes[index % 3]
        (folder / "photos" / label).mkdir(parents=True, exist_ok=True)
        content = photo(0 if index == 22 else index, 40 + 8 * (index % 5 if index < 22 else 0), 40 + 16 * (index % 2))
        (folder / "photos" / label / f"{index}.png").write_bytes(b"torn" if index == 20 else content)
    config = vt.TrainConfig(r=4, learning_rate=0.05, epochs=1, batch_size=4)
    data = dataset(folder)
    train = vt.Dataset(data.without(["scratch/20.png"]).examples[::3], task=TASK)
    vt.LoRATrainer(vt.VLM(folder / "model"), config).fit(train, run_dir=folder / "fit")
    return folder


def dataset(root: Path) -> vt.Dataset:
    return vt.Dataset.from_folder(root / "photos", task=TASK)


@pytest.fixture(scope="module")
def base(root: Path) -> vt.Evaluation:
    """The base model's evaluation by one process; a second one was stopped half-way."""
    found = evaluate(root, vt.VLM(root / "model"), "one")
    [journal] = (root / "one" / "predictions").iterdir()
    half = root / "stopped" / "predictions" / journal.name
    half.parent.mkdir(parents=True)
    answered = [line for line in journal.read_bytes().splitlines(keepends=True) if b'"failed"' not in line]
    half.write_bytes(b"".join(answered[:9]))
    return found


def evaluate(root: Path, predictor: object, run_dir: str) -> vt.Evaluation:
    evaluator = vt.Evaluator(dataset(root), run_dir=root / run_dir, min_coverage=0.5)
    return evaluator.run(predictor)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def requests() -> list[object]:
    """What the API was asked."""
    return []


@pytest.fixture(scope="module")
def script(root: Path, base: vt.Evaluation, requests: list[object]) -> Ran:
    """A script in two processes; in the end one of them is killed."""
    (root / "script.py").write_text(SCRIPT)
    with FakeGeminiServer("dent") as server:
        ran = launch(root / "script.py", root, server.url, TASK.model_dump_json())
        requests.extend(server.requests)
    return ran


def found(root: Path, name: str, rank: int = 0) -> vt.Evaluation:
    return vt.Evaluation.load(root / f"{name}-{rank}.parquet")


def require_same(one: vt.Evaluation, two: vt.Evaluation, *, tolerance: float = 1e-6) -> None:
    """Everything but time is the same: scores to a tolerance, all else to the bit."""
    for name in one.table.column_names:
        mine, theirs = one.table[name].to_pylist(), two.table[name].to_pylist()
        if name == "scores":
            assert [row and pytest.approx(row, abs=tolerance) for row in mine] == theirs
        elif name != "latency_s":
            assert mine == theirs, name
    assert one.accuracy == two.accuracy
    assert {**one.about(), "wall_s": 0} == {**two.about(), "wall_s": 0}


@pytest.mark.parametrize("name", ["base", "resumed"])
def test_the_answers_are_those_of_one_process(root: Path, base: vt.Evaluation, script: Ran, name: str) -> None:
    require_same(base, found(root, name))
    assert base.outcomes["failed"] == 1


def test_an_adapter_answers_on_several_processes(root: Path, base: vt.Evaluation, script: Ran) -> None:
    alone = evaluate(root, vt.Adapter.load(root / "fit" / "adapter"), "one")
    require_same(alone, found(root, "adapter"))
    # These take the stock forward pass, which rounds otherwise.
    require_same(alone, found(root, "spread adapter"), tolerance=1e-5)
    require_same(base, found(root, "spread"), tolerance=1e-5)
    assert alone.table["scores"] != base.table["scores"]


@pytest.mark.parametrize("name", ["base", "adapter", "resumed", "gemini", "spread"])
def test_all_processes_get_the_same_result(root: Path, script: Ran, name: str) -> None:
    first, second = found(root, name), found(root, name, rank=1)
    assert first.table.equals(second.table) and first.about() == second.about()
    assert first.wall_s


def test_the_journal_is_the_one_of_one_process(root: Path, base: vt.Evaluation, script: Ran) -> None:
    [alone] = (root / "one" / "predictions").glob("model-????????.jsonl")
    keys = keys_of(alone)
    assert len(keys) == 22
    for run_dir in ("two", "stopped", "spread"):
        assert sorted(keys_of(root / run_dir / "predictions" / alone.name)) == sorted(keys)
        assert not list((root / run_dir / "predictions").glob("*.part*"))
    # What was there when the run was stopped stays as it was.
    stopped = keys_of(root / "stopped" / "predictions" / alone.name)
    assert stopped[:8] == [key for key in keys if key in stopped[:8]]


def keys_of(journal: Path) -> list[str]:
    return [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]


def test_an_api_is_asked_by_one_process(root: Path, script: Ran, requests: list[object]) -> None:
    assert len(requests) == 21
    assert found(root, "gemini").outcomes["answered"] == 22


def test_one_that_fails_tells_all_and_all_stop(root: Path, script: Ran) -> None:
    facts = [json.loads((root / f"facts-{rank}").read_text())[0] for rank in (0, 1)]
    assert [fact[:2] for fact in facts] == [["PredictorError", "the second process has no tongue"]] * 2, script.err
    asked = facts[0][2]
    assert asked < 100, "the first process should not go on with its 150 questions"


def test_different_photos_are_refused(root: Path, script: Ran) -> None:
    for rank in (0, 1):
        kind, words, asked = json.loads((root / f"facts-{rank}").read_text())[1]
        assert (kind, asked) == ("EvaluationError", 0)
        assert "the same photos in the same order" in words


def test_answers_on_a_disk_that_the_first_process_does_not_see_are_missed(root: Path, script: Ran) -> None:
    facts = [json.loads((root / f"facts-{rank}").read_text())[2] for rank in (0, 1)]
    words = f"the answers of some processes are not in {root}/apart-0/predictions; several machines need a run_dir"
    assert [(kind, text.startswith(words)) for kind, text, _ in facts] == [("StorageError", True)] * 2
    [part] = (root / "apart-1" / "predictions").glob("*.part1.jsonl")
    assert len(keys_of(part)) == 150


def test_a_full_disk_ends_what_is_asked_in_step(root: Path, script: Ran) -> None:
    facts = [json.loads((root / f"facts-{rank}").read_text())[3] for rank in (0, 1)]
    assert facts == [["StorageError", "no space left", 6]] * 2


def test_one_process_goes_on_where_two_were_killed(root: Path, script: Ran) -> None:
    assert script.status != 0
    squares = tiny_dataset(100, split=False)
    before = (root / "asked").read_text().splitlines()
    parts = list((root / "killed" / "predictions").glob("*.part?.jsonl"))
    kept = sum(len(keys_of(part)) for part in parts)
    assert len(parts) == 2 and 8 <= kept < 300
    again = ScriptedPredictor(lambda example: example.label, name="oracle")
    evaluation = vt.Evaluator(squares, run_dir=root / "killed").run(again)
    assert evaluation.accuracy.n == 300 and len(again.asked) == 300 - kept
    # At most what each was busy with at the end is asked twice.
    assert max(Counter([*before, *again.asked]).values()) <= 2
    assert len(before) + len(again.asked) <= 302
    assert isinstance(evaluation.table, pa.Table)
