"""A sweep of a real tiny model: what it looks at, what it keeps, and what it survives."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes
from tests.training.conftest import COLOURS, outspoken, photo
from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, EvaluationError, SplitError, StorageError, TrainingError
from vlm_tune.evaluation import Evaluator
from vlm_tune.experiments import Choice, LogUniform, Sweep, SweepResult, Trial, Uniform
from vlm_tune.experiments.space import Setting
from vlm_tune.experiments.sweep import held_out
from vlm_tune.experiments.trials import Training, TrialUnit
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM

START = TrainConfig(r=2, lora_alpha=16, learning_rate=5e-3, epochs=1, batch_size=6, regions=("language",))
SPACE = {"r": Choice(2, 4), "learning_rate": LogUniform(1e-4, 1e-2)}
TASK = Task(prompt="Which colour?", classes=COLOURS)


def photos(count: int, *, first: int = 0) -> list[Example]:
    """So many photos of each colour."""
    return [
        Example(id=f"{label}/{index}", image=photo(label, 3 * index + place, width=32, height=32), label=label)
        for index in range(first, first + count)
        for place, label in enumerate(COLOURS)
    ]


def colours() -> Dataset:
    """Eighteen photos to train on, and three to judge on that are nowhere: whoever opens one fails."""
    test = [Example(id=f"test/{label}", image=Path("/nowhere") / f"{label}.png", label=label) for label in COLOURS]
    train = photos(6)
    splits = {**{one.id: "train" for one in train}, **{one.id: "test" for one in test}}
    return Dataset([*train, *test], task=TASK, splits=splits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outspoken(tiny_qwen3_vl, tmp_path_factory.mktemp("models") / "bold")


@pytest.fixture(scope="module")
def trainer(base: Path) -> LoRATrainer:
    return LoRATrainer(VLM(base), START)


@pytest.fixture(scope="module")
def swept(trainer: LoRATrainer, tmp_path_factory: pytest.TempPathFactory) -> tuple[SweepResult, list[str]]:
    """A sweep of three trials, and the ids of the photos that were opened."""
    opened: list[str] = []
    read = Example.read

    def noted(self: Example) -> bytes:
        opened.append(self.id)
        return read(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Example, "read", noted)
        result = Sweep(SPACE, num_trials=3, validation=1 / 3).run(
            trainer, colours(), run_dir=tmp_path_factory.mktemp("sweep")
        )
    return result, opened


@pytest.fixture
def no_loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    yield


def outcome(trial: Trial) -> Trial:
    """Return a trial without what the clock says of it."""
    score = trial.score.model_copy(update={"seconds": 0.0}) if trial.score else None
    return trial.model_copy(update={"seconds": None, "score": score})


def test_the_test_split_is_never_looked_at(swept: tuple[SweepResult, list[str]]) -> None:
    result, opened = swept
    assert opened
    assert not any(name.startswith("test/") for name in opened)
    assert result.held_out == "6 of 18 training photos, as there is no validation split (seed 0)"
    assert {trial.accuracy.n for trial in result.trials if trial.accuracy} == {6}


def test_trials_are_judged_as_an_evaluation_would_and_the_best_adapter_stays(
    swept: tuple[SweepResult, list[str]], trainer: LoRATrainer
) -> None:
    result, _ = swept
    assert [trial.state for trial in result.trials] == ["finished"] * 3
    assert result.trials[0].is_start
    assert result.adapter is not None
    parts, _ = held_out(colours(), share=1 / 3, seed=0)
    adapter = Adapter.load(result.adapter, base=trainer.base)
    assert adapter.config == result.best.config
    assert Evaluator(parts.validation).run(adapter).accuracy == result.best.accuracy
    assert [path.name for path in (result.run_dir / "trials").iterdir()] == [str(result.best.number)]
    assert all(trial.after_epochs[-1] == (1.0, trial.accuracy.value) for trial in result.trials if trial.accuracy)


def test_a_sweep_that_is_done_is_not_done_again(
    swept: tuple[SweepResult, list[str]], trainer: LoRATrainer, no_loading: None
) -> None:
    result, _ = swept
    again = Sweep(SPACE, num_trials=3, validation=1 / 3).run(trainer, colours(), run_dir=result.run_dir)
    assert again == result


def test_what_it_was_run_with_must_stay_the_same(
    swept: tuple[SweepResult, list[str]], trainer: LoRATrainer, no_loading: None
) -> None:
    result, _ = swept
    other = Dataset([*photos(5), *photos(1, first=9)], task=TASK, splits={}).split(test=0.2)
    for sweep, data, start, words in (
        (Sweep(SPACE, num_trials=3), other, START, "another dataset"),
        (Sweep({"r": Choice(2, 4)}, validation=1 / 3), colours(), START, "another space"),
        (Sweep(SPACE, validation=1 / 3, seed=1), colours(), START, "another dataset and another seed"),
        (Sweep(SPACE, validation=1 / 3), colours(), START.model_copy(update={"epochs": 2.0}), "starting configuration"),
    ):
        with pytest.raises(StorageError, match=f"study.db is a sweep with .*{words}"):
            sweep.run(trainer.with_config(start), data, run_dir=result.run_dir)
        if "space" not in words and sweep.seed == 0:
            with pytest.raises(EvaluationError, match=words):
                result.confirm(trainer.with_config(start), data)


def test_a_killed_sweep_goes_on_to_the_same_end(
    swept: tuple[SweepResult, list[str]], base: Path, trainer: LoRATrainer, tmp_path: Path
) -> None:
    code = f"""
import os, signal
from tests.experiments import test_sweep as here
from vlm_tune.experiments.study import Study

hear = Study.hear

def killed(self, unit, message):
    if unit.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return hear(self, unit, message)

Study.hear = killed
trainer = here.LoRATrainer(here.VLM({str(base)!r}), here.START)
here.Sweep(here.SPACE, num_trials=3, validation=1 / 3).run(trainer, here.colours(), run_dir={str(tmp_path)!r})
"""
    killed = processes.run("-c", code)
    assert killed.status == -signal.SIGKILL, killed.err
    result = Sweep(SPACE, num_trials=3, validation=1 / 3).run(trainer, colours(), run_dir=tmp_path)
    unbroken, _ = swept
    assert [outcome(trial) for trial in result.trials] == [outcome(trial) for trial in unbroken.trials]


def test_a_trial_that_runs_out_of_memory_is_kept_with_its_reason_and_the_others_go_on(
    trainer: LoRATrainer, tmp_path: Path
) -> None:
    too_large = 10**12
    sweep = Sweep({"r": Choice(2, too_large)}, num_trials=2, validation=1 / 3)
    result = sweep.run(trainer, colours(), run_dir=tmp_path)
    assert {trial.config.r: trial.state for trial in result.trials} == {2: "finished", too_large: "failed"}
    failed = next(trial for trial in result.trials if trial.state == "failed")
    assert "ran out of memory" in failed.reason
    assert result.best.config.r == 2
    assert not trainer.base.load().adapted_now


def test_a_trial_that_is_given_up_ends_at_once_and_is_not_asked(trainer: LoRATrainer, tmp_path: Path) -> None:
    parts, _ = held_out(colours(), share=1 / 3, seed=0)
    config = START.model_copy(update={"epochs": 3.0})
    unit = TrialUnit(0, {}, Setting(config=config, max_pixels=TASK.max_pixels), tmp_path)
    told: list[float] = []

    def give_up(message: object) -> bool:
        told.append(message.share)  # type: ignore[attr-defined]
        return False

    given = Training(trainer, parts)(unit, give_up)
    assert told == [pytest.approx(1 / 3)]
    assert given.score is None
    assert given.accuracy.n == 6
    # Killed before anybody took note, it is not trained again, and still given up.
    assert Training(trainer, parts)(unit, give_up) == given
    assert told == [pytest.approx(1 / 3)] * 2


def test_the_image_budget_is_part_of_the_task(trainer: LoRATrainer, tmp_path: Path) -> None:
    sweep = Sweep({"max_pixels": Choice(256, 1024)}, num_trials=2, validation=1 / 3)
    result = sweep.run(trainer, colours(), run_dir=tmp_path)
    assert {trial.max_pixels for trial in result.trials} == {256, 1024}
    assert result.adapter is not None
    assert Adapter.load(result.adapter, base=trainer.base).task.max_pixels == result.best.max_pixels


def test_what_is_sent_to_workers_can_be_sent(trainer: LoRATrainer, tmp_path: Path) -> None:
    parts, _ = held_out(colours(), share=1 / 3, seed=0)
    unit = TrialUnit(0, {"r": "2"}, Setting(config=START, max_pixels=1024), tmp_path)
    work, same = pickle.loads(pickle.dumps((Training(trainer, parts), unit)))  # noqa: S301 (our own bytes)
    assert same == unit
    assert work.data.fingerprint == parts.fingerprint


def test_a_validation_split_is_used_as_it_is() -> None:
    data = colours()
    moved = data.with_splits({f"{label}/5": "validation" for label in COLOURS})
    parts, told = held_out(moved, share=0.5, seed=0)
    assert parts.validation.ids == moved.validation.ids
    assert parts.train.ids == moved.train.ids
    assert not parts.has_split("test")
    assert told == "3 photos of the validation split"


def test_photos_held_out_are_drawn_from_all_classes_and_keep_their_groups_whole() -> None:
    grouped = [one.model_copy(update={"group": one.id[-1]}) for one in photos(6)]
    data = Dataset(grouped, task=TASK, splits=dict.fromkeys((one.id for one in grouped), "train"))
    parts, _ = held_out(data, share=1 / 3, seed=0)
    assert sorted(parts.validation.labels) == sorted(COLOURS * 2)
    assert not {one.group for one in parts.train} & {one.group for one in parts.validation}
    assert held_out(data, share=1 / 3, seed=0)[0].validation.ids == parts.validation.ids
    assert held_out(data, share=1 / 3, seed=3)[0].validation.ids != parts.validation.ids


def test_what_is_impossible_is_refused_before_anything_loads(
    trainer: LoRATrainer, tmp_path: Path, no_loading: None
) -> None:
    for space, data, kind, words in (
        ({"r": Choice(0, 2)}, colours(), TrainingError, "r cannot be 0"),
        ({"kinds": Choice(("attention",), ("conv",))}, colours(), AdapterError, "conv"),
        ({"epochs": Uniform(-1, 2)}, colours(), TrainingError, "epochs cannot be -1"),
        (SPACE, Dataset(photos(2), task=TASK), SplitError, "no train split"),
        (SPACE, Dataset(photos(2), task=TASK).split(test=0.5), SplitError, "too few examples"),
    ):
        with pytest.raises(kind, match=words):
            Sweep(space, num_trials=1).run(trainer, data, run_dir=tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("settings", [{"num_trials": 0}, {"validation": 0.0}, {"validation": 1.0}])
def test_impossible_numbers_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(TrainingError, match="num_trials is at least 1 and validation a share"):
        Sweep(SPACE, **settings)
