"""A Ray cluster of two workers on this machine: the results of one process, also where a worker is killed."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import vlm_tune as vt
from vlm_tune import errors
from vlm_tune.experiments.backends import Outcome, Report
from vlm_tune.testing import ScriptedPredictor, tiny_dataset


@pytest.fixture(scope="module")
def backend() -> Iterator[vt.RayBackend]:
    """Two workers; the cluster is started for this file, and behind it nothing is left."""
    import ray

    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    handler = signal.getsignal(signal.SIGTERM)
    with vt.RayBackend(num_cpus=0.5, max_workers=2) as started:
        folder = Path(ray.get_runtime_context().get_temp_dir())
        assert folder.is_dir()
        yield started
    assert not ray.is_initialized() and not folder.exists()
    assert {name: value for name, value in os.environ.items() if name.startswith("RAY_")} == before
    assert signal.getsignal(signal.SIGTERM) == handler


@dataclass
class Work:
    """Squares a number; some make trouble."""

    folder: Path

    def __call__(self, unit: int, report: Report) -> tuple[int, bool]:
        begun = self.folder / f"{unit}.begun"
        begun.write_text((begun.read_text() if begun.exists() else "") + "x")
        go_on = report(f"at {unit}")
        if unit == 1:
            raise errors.TrainingError("memory ran out")
        if unit == 2 and begun.read_text() == "x":
            os.kill(os.getpid(), signal.SIGKILL)
        if unit == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return unit**2, go_on


def test_one_lost_worker_costs_its_unit_only(backend: vt.RayBackend, tmp_path: Path) -> None:
    drawn: list[int] = []
    heard: list[tuple[int, str]] = []

    def units() -> Iterator[int]:
        for unit in range(6):
            drawn.append(unit)
            yield unit

    def hear(unit: int, message: str) -> bool:
        heard.append((unit, message))
        return unit != 4

    found: dict[int, Outcome[int, Any]] = {}
    few = vt.RayBackend(num_cpus=0.5, max_workers=2, max_retries=1)
    for outcome in few.run(Work(tmp_path), units(), heard=hear):
        assert len(drawn) <= len(found) + 2, "no unit is drawn before there is a worker for it"
        found[outcome.unit] = outcome
    assert [found[unit].result for unit in range(6)] == [(0, True), None, (4, True), None, (16, False), (25, True)]
    assert found[1].error == "memory ran out"
    assert "worker was lost at every attempt (2)" in (found[3].error or "")
    begun = {unit: len((tmp_path / f"{unit}.begun").read_text()) for unit in range(6)}
    assert begun == {0: 1, 1: 1, 2: 2, 3: 2, 4: 1, 5: 1}
    assert set(heard) == {(unit, f"at {unit}") for unit in range(6)}


def fail(unit: int, report: Report) -> int:
    raise KeyError(f"no such thing as {unit}")


def test_other_exceptions_come_with_the_traceback_of_the_worker(backend: vt.RayBackend) -> None:
    with pytest.raises(KeyError, match="no such thing as 7") as caught:
        list(backend.run(fail, [7]))
    [note] = caught.value.__notes__
    assert note.startswith("On the worker:") and "in fail" in note
    # While somebody still holds the error.
    wait_until_nobody_works()


def wait_until_nobody_works() -> None:
    import ray

    until = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < until, "the workers are still there"
        time.sleep(0.1)


def sleep(unit: int, report: Report) -> None:
    report("sleeping")
    time.sleep(60)


def test_ctrl_c_stops_the_workers(backend: vt.RayBackend, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupt(unit: int, message: str) -> bool:
        if unit == 0:
            threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
        return True

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(backend.run(sleep, [0, 1], heard=interrupt))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until_nobody_works()
    assert capfd.readouterr().out == ""


def test_work_that_does_not_pickle_is_refused(backend: vt.RayBackend) -> None:
    lock = threading.Lock()
    with pytest.raises(errors.BackendError, match=r"the work cannot be sent to another process: .*lock"):
        list(backend.run(lambda unit, report: lock, [1]))


def test_needs_that_no_machine_has_are_refused_at_once(backend: vt.RayBackend) -> None:
    with pytest.raises(errors.BackendError, match="no machine of the cluster has room for a worker with 99 GPUs"):
        list(vt.RayBackend(num_gpus=99).run(fail, [1]))


@dataclass
class Doubling:
    """Doubles the numbers of a batch."""

    folder: Path

    def __call__(self, batch: Sequence[int]) -> list[int]:
        begun = self.folder / f"{batch[0]}.begun"
        begun.write_text((begun.read_text() if begun.exists() else "") + "x")
        if (batch[0] == 10 and begun.read_text() == "x") or batch[0] == 100:
            os.kill(os.getpid(), signal.SIGKILL)
        return [2 * number for number in batch]


def test_a_lost_worker_costs_its_batch_only(backend: vt.RayBackend, tmp_path: Path) -> None:
    found = [number for batch in backend.map_batches(Doubling(tmp_path), range(40), most=5) for number in batch]
    assert sorted(found) == list(range(0, 80, 2))
    begun = {path.name: len(path.read_text()) for path in tmp_path.iterdir()}
    assert begun == {f"{start}.begun": 2 if start == 10 else 1 for start in range(0, 40, 5)}


def test_a_batch_that_kills_every_worker_ends_the_work(backend: vt.RayBackend, tmp_path: Path) -> None:
    once = vt.RayBackend(num_cpus=0.5, max_workers=1, max_retries=0)
    with pytest.raises(errors.BackendError, match=r"lost at every attempt \(1\) at one batch"):
        list(once.map_batches(Doubling(tmp_path), [100], most=1))


def require_same(here: pa.Table, there: pa.Table) -> None:
    """All but time is the same: scores but for rounding, all else to the bit."""
    for name in here.column_names:
        mine, theirs = here[name].to_pylist(), there[name].to_pylist()
        if name == "scores":
            assert [row and pytest.approx(row, abs=1e-5) for row in mine] == theirs
        elif name != "latency_s":
            assert mine == theirs, name


def test_a_curve_is_that_of_one_process(backend: vt.RayBackend, tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    data = tiny_dataset(4)
    trainer = vt.LoRATrainer(vt.VLM(tiny_qwen3_vl), vt.TrainConfig(r=2, epochs=1, batch_size=4, learning_rate=0.01))
    here, there = (
        vt.LearningCurve.run(trainer, data, sizes=[4, 8], seeds=[0], run_dir=tmp_path / name, backend=where)
        for name, where in (("here", None), ("there", backend))
    )
    told = [[point.model_dump(exclude={"seconds", "cost"}) for point in curve.points] for curve in (here, there)]
    assert told[0] == told[1] and not there.failed
    tables = sorted((tmp_path / "here").rglob("test.parquet"))
    assert len(tables) == 2
    for mine in tables:
        theirs = tmp_path / "there" / mine.relative_to(tmp_path / "here")
        require_same(vt.Evaluation.load(mine).table, vt.Evaluation.load(theirs).table)


def test_a_sweep_is_that_of_one_process(backend: vt.RayBackend, tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    # The first trials are drawn without looking at others, so that they are the same in any order.
    data = tiny_dataset(4)
    trainer = vt.LoRATrainer(vt.VLM(tiny_qwen3_vl), vt.TrainConfig(r=2, epochs=1, batch_size=4, learning_rate=0.01))
    sweep = vt.Sweep({"learning_rate": vt.LogUniform(1e-4, 1e-2)}, num_trials=3, validation=0.5)
    here, there = (
        sweep.run(trainer, data, run_dir=tmp_path / name, backend=where)
        for name, where in (("here", None), ("there", backend))
    )
    clock = {"seconds": True, "cost": True, "score": {"seconds", "cost"}}
    told = [[trial.model_dump(exclude=clock) for trial in result.trials] for result in (here, there)]
    assert told[0] == told[1]
    assert there.best == there.trials[here.best.number]
    assert vt.Adapter.load(there.adapter or "", base=trainer.base).config == here.best.config


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40 + 8 * (seed % 2), 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def photos() -> vt.Dataset:
    """Twelve photos, one of them in two splits, and a file that is no photo."""
    examples = [vt.Example(id=f"{at}.png", image=noise(at % 11), label="ab"[at % 2]) for at in range(12)]
    examples.append(vt.Example(id="torn.png", image=b"torn", label="a"))
    splits = {example.id: "test" if at < 4 else "train" for at, example in enumerate(examples)}
    task = vt.Task(prompt="Which one?", classes=("a", "b"))
    return vt.Dataset(examples, task=task, splits=splits)  # type: ignore[arg-type]


def test_a_stopped_evaluation_goes_on_there(
    backend: vt.RayBackend, tiny_qwen3_vl: Path, tmp_path: Path, photos: vt.Dataset
) -> None:
    base, data = vt.VLM(tiny_qwen3_vl), vt.Dataset(photos.examples, task=photos.task)
    here = vt.Evaluator(data, run_dir=tmp_path / "here", min_coverage=0.5).run(base)
    [whole] = (tmp_path / "here" / "predictions").iterdir()
    half = tmp_path / "there" / "predictions" / whole.name
    half.parent.mkdir(parents=True)
    # Failures are asked anew.
    lines = [line for line in whole.read_bytes().splitlines(keepends=True) if b'"failed"' not in line]
    half.write_bytes(b"".join(lines[:5]))
    there = vt.Evaluator(data, run_dir=tmp_path / "there", min_coverage=0.5).run(base, backend=backend)
    require_same(here.table, there.table)
    assert here.accuracy == there.accuracy and there.outcomes["failed"] == 1
    assert half.read_bytes().startswith(b"".join(lines[:5]))
    assert len(half.read_bytes().splitlines()) == len(lines) + 1


def test_embeddings_are_those_of_one_process(backend: vt.RayBackend, tmp_path: Path, photos: vt.Dataset) -> None:
    here = vt.LeakageChecker().check(photos)
    one = vt.RayBackend(num_cpus=0.5, max_workers=1)
    there = vt.LeakageChecker(cache_dir=tmp_path).check(photos, backend=one)
    assert there == here and there.leaked_test_ids == ("0.png",) and "torn.png" in there.unreadable
    # What came back is kept here: the next time no worker is asked.
    assert vt.LeakageChecker(cache_dir=tmp_path).check(photos, backend=vt.RayBackend("nowhere:1")) == here


def test_what_one_process_asks_is_asked_here(photos: vt.Dataset) -> None:
    oracle = ScriptedPredictor(lambda example: example.label)
    found = vt.Evaluator(photos.test).run(oracle, backend=vt.RayBackend("nowhere:1"))
    assert found.accuracy.value == 1 and len(oracle.asked) == 4
