"""Killed, stopped, out of space: the same call goes on, and ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import run
from tests.training.running.faults import SHORT, STEPS, at_call, checkpoints, digest, full_disk, signalled
from vlm_tune.data import Dataset
from vlm_tune.errors import StoppedError, StorageError
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM

Fit = Callable[..., Adapter]

RANDOM_STATES = "transformers.Trainer._save_rng_state"
MARK = "vlm_tune.training.running.checkpoints._files.write_json"
ADAPTER = "vlm_tune.training.trainer.save_adapter"

WAYS = {"fast": SHORT, "stock": SHORT.model_copy(update={"fast": False, "lora_dropout": 0.1})}


@pytest.fixture
def fit(tiny_qwen3_vl: Path, colours: Dataset) -> Fit:
    return lambda run_dir, config=SHORT: LoRATrainer(VLM(tiny_qwen3_vl), config).fit(colours, run_dir=run_dir)


@pytest.fixture(scope="module")
def unbroken(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[TrainConfig], Adapter]:
    made: dict[str, Adapter] = {}

    def make(config: TrainConfig = SHORT) -> Adapter:
        if config.fingerprint not in made:
            trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
            made[config.fingerprint] = trainer.fit(colours, run_dir=tmp_path_factory.mktemp("unbroken"))
        return made[config.fingerprint]

    return make


def assert_as_unbroken(resumed: Adapter, unbroken: Adapter, *, resumed_from: int) -> None:
    assert resumed.training.resumed_from == resumed_from
    assert resumed.training.losses == unbroken.training.losses
    assert resumed.training.learning_rates == unbroken.training.learning_rates
    assert digest(resumed) == digest(unbroken)
    assert [path.name for path in resumed.path.parent.iterdir()] == ["adapter"]


BOTH = {"checkpoint-2": True, "checkpoint-4": True}

# Way, function, which of its calls the process dies at, signals, the checkpoints it leaves, the step it goes on from.
DEATHS = {
    "in a step": ("fast", STEPS, 5, [signal.SIGKILL], BOTH, 4),
    "in a checkpoint": ("stock", RANDOM_STATES, 2, [signal.SIGKILL], {**BOTH, "checkpoint-4": False}, 2),
    "before the first mark": ("fast", MARK, 1, [signal.SIGKILL], {"checkpoint-2": False}, 0),
    "before the adapter": ("fast", ADAPTER, 1, [signal.SIGKILL], {"checkpoint-8": True, "checkpoint-9": True}, 9),
    "of two SIGTERM": ("stock", STEPS, 4, [signal.SIGTERM, signal.SIGTERM], {"checkpoint-2": True}, 2),
}

# One process forks a child for each death.
SCRIPT = """
import json, os, pickle, sys
from tests.training.running.faults import at_call, signalled
from vlm_tune.training import LoRATrainer
from vlm_tune.vlm import VLM

def die(model, data, config, run_dir, point, call, signals):
    with at_call(point, call, signalled(*signals)):
        LoRATrainer(VLM(model), config).fit(data, run_dir=run_dir)

endings = []
for job in pickle.load(open(sys.argv[1], "rb")):
    if (child := os.fork()) == 0:
        try:
            die(*job)
        finally:
            os._exit(0)
    endings.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(endings))
"""


@pytest.fixture(scope="module")
def dead(tiny_qwen3_vl: Path, colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int]]:
    folder = tmp_path_factory.mktemp("dead")
    jobs = [
        (tiny_qwen3_vl, colours, WAYS[way], folder / name, point, call, signals)
        for name, (way, point, call, signals, *_) in DEATHS.items()
    ]
    (folder / "jobs.pickle").write_bytes(pickle.dumps(jobs))
    done = run("-c", SCRIPT, folder / "jobs.pickle")
    assert done.status == 0, done.err
    return folder, json.loads(done.out)


@pytest.mark.parametrize("name", DEATHS)
def test_a_killed_run_ends_bit_for_bit_like_an_unbroken_one(
    dead: tuple[Path, list[int]], fit: Fit, unbroken: Callable[..., Adapter], name: str
) -> None:
    way, _, _, signals, left, resumed_from = DEATHS[name]
    assert dead[1][list(DEATHS).index(name)] == -signals[-1]
    assert checkpoints(dead[0] / name) == left
    resumed = fit(dead[0] / name, WAYS[way])
    assert_as_unbroken(resumed, unbroken(WAYS[way]), resumed_from=resumed_from)


@pytest.mark.parametrize(("step", "before"), [(3, 2), (9, 8)])
def test_sigterm_saves_after_the_step_and_says_so(
    fit: Fit, unbroken: Callable[..., Adapter], tmp_path: Path, step: int, before: int
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    stopping = at_call(STEPS, step, signalled(signal.SIGTERM))
    with stopping, pytest.raises(StoppedError, match=f"after step {step} of 9; run the same again") as stopped:
        fit(tmp_path)
    assert (stopped.value.step, stopped.value.num_steps) == (step, 9)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert checkpoints(tmp_path) == {f"checkpoint-{before}": True, f"checkpoint-{step}": True}
    assert_as_unbroken(fit(tmp_path), unbroken(), resumed_from=step)


@pytest.mark.parametrize(("point", "call", "step"), [(STEPS, 5, 5), ("transformers.Trainer._finalize_training", 1, 9)])
def test_sigterm_saves_where_nothing_else_would(
    fit: Fit, unbroken: Callable[..., Adapter], tmp_path: Path, point: str, call: int, step: int
) -> None:
    config = SHORT.model_copy(update={"save_every": None})
    with at_call(point, call, signalled(signal.SIGTERM)), pytest.raises(StoppedError, match=f"after step {step} of 9"):
        fit(tmp_path, config)
    assert checkpoints(tmp_path) == {f"checkpoint-{step}": True}
    assert_as_unbroken(fit(tmp_path, config), unbroken(), resumed_from=step)


@pytest.fixture
def hearing() -> Iterator[None]:
    """Hear Ctrl-C, which shells make background jobs deaf to."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hearing")
def test_a_checkpoint_torn_by_a_crash_of_the_machine_is_passed_over(
    fit: Fit, unbroken: Callable[..., Adapter], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with at_call(STEPS, 6, signalled(signal.SIGINT)), pytest.raises(KeyboardInterrupt):
        fit(tmp_path)
    [optimizer] = tmp_path.glob("checkpoints/*/checkpoint-4/optimizer.pt")
    os.truncate(optimizer, optimizer.stat().st_size - 1)
    resumed = fit(tmp_path)
    assert "training goes on from checkpoint-2" in capfd.readouterr().err
    assert_as_unbroken(resumed, unbroken(), resumed_from=2)


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(
    fit: Fit, unbroken: Callable[..., Adapter], tmp_path: Path
) -> None:
    told = pytest.raises(StorageError, match=r"no space left to write .*checkpoint-4; nothing was left behind")
    with full_disk() as fill, at_call(STEPS, 3, fill), told:
        fit(tmp_path)
    assert checkpoints(tmp_path) == {"checkpoint-2": True}
    assert_as_unbroken(fit(tmp_path), unbroken(), resumed_from=2)


def test_a_disk_that_fills_up_while_the_adapter_is_written(
    fit: Fit, unbroken: Callable[..., Adapter], tmp_path: Path
) -> None:
    told = pytest.raises(StorageError, match=r"no space left to write .*adapter; nothing was left behind")
    with full_disk() as fill, at_call(ADAPTER, 1, fill), told:
        fit(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
    assert_as_unbroken(fit(tmp_path), unbroken(), resumed_from=9)
