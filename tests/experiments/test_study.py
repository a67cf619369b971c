"""A study remembers every trial, goes on after a kill as if there had been none, and takes no other sweep's folder."""

from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from vlm_tune.errors import MissingExtraError, StorageError
from vlm_tune.experiments.dimensions import Choice, Dimension, LogUniform
from vlm_tune.experiments.space import Space
from vlm_tune.experiments.study import STUDY_FILE, Study, best_of
from vlm_tune.experiments.trials import Given, Heard, Score, Trial, TrialUnit
from vlm_tune.statistics import wilson
from vlm_tune.task import Task
from vlm_tune.training import TrainConfig

TASK = Task(prompt="?", classes=("crack", "dent"))
START = TrainConfig(r=16, learning_rate=2e-4, epochs=2)
WIDE: Mapping[str, Dimension] = {"r": Choice(16, 64), "learning_rate": LogUniform(1e-5, 1e-3)}
ABOUT = {"dataset": "one", "space": "one"}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let SQLite write without waiting for the disk: a test has nothing to lose to a power cut."""

    def relax(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    yield
    event.remove(Engine, "connect", relax)


@contextmanager
def study(
    folder: Path, *, space: Mapping[str, Dimension] = WIDE, about: Mapping[str, str] = ABOUT, prune: bool = True
) -> Iterator[Study]:
    opened = Study(folder, Space(space, START, TASK), about, seed=0, prune=prune)
    opened.open()
    try:
        yield opened
    finally:
        opened.close()


def given(right: int, *, whole: bool = True) -> Given:
    score = Score(rightness=tuple(place < right for place in range(100)), seconds=1.0)
    return Given(wilson(right, 100), 1.0, None, score if whole else None)


def right_of(unit: TrialUnit) -> int:
    """How right a setting is: the more, the nearer its learning rate is to 1e-4."""
    return round(90 - 10 * abs(math.log10(unit.setting.config.learning_rate) + 4))


def run(opened: Study, num_trials: int) -> tuple[Trial, ...]:
    while (unit := opened.next(num_trials)) is not None:
        opened.hear(unit, Heard(1.0, 0.5, right_of(unit) / 200))
        opened.tell(unit, given(right_of(unit)), None)
    return opened.trials()


def test_the_starting_configuration_comes_first_and_the_others_move_to_what_is_good(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        trials = run(opened, 20)
    assert [trial.number for trial in trials] == list(range(20))
    assert trials[0].is_start
    assert trials[0].config == START
    assert not any(trial.is_start for trial in trials[1:])
    away = [abs(math.log10(trial.config.learning_rate) + 4) for trial in trials]
    assert sum(away[10:]) < sum(away[:10])


def test_outside_of_the_space_the_starting_configuration_is_no_trial(tmp_path: Path) -> None:
    with study(tmp_path, space={"r": Choice(8, 64), "learning_rate": LogUniform(1e-5, 1e-3)}) as opened:
        assert not any(trial.is_start for trial in run(opened, 3))


def test_a_small_space_is_tried_out_and_no_setting_twice(tmp_path: Path) -> None:
    space = {"r": Choice(8, 16, 64), "use_rslora": Choice(False, True)}
    with study(tmp_path, space=space) as opened:
        trials = run(opened, 50)
    assert len({(trial.config.r, trial.config.use_rslora) for trial in trials}) == len(trials) == 6


def test_more_trials_may_be_asked_for_later(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        first = run(opened, 3)
    with study(tmp_path) as opened:
        assert run(opened, 5)[:3] == first
        assert opened.next(5) is None


def test_a_sweep_that_was_killed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    with study(tmp_path / "unbroken") as opened:
        unbroken = run(opened, 13)
    with study(tmp_path / "broken") as opened:
        run(opened, 11)
        lost = opened.next(13)
        assert lost is not None
        opened.hear(lost, Heard(1.0, 0.5, 0.4))
    with study(tmp_path / "broken") as opened:
        again = opened.next(13)
        assert again == lost
        opened.hear(again, Heard(1.0, 0.5, right_of(again) / 200))
        opened.tell(again, given(right_of(again)), None)
        assert run(opened, 13) == unbroken
    states = sqlite3.connect(tmp_path / "broken" / STUDY_FILE).execute("SELECT state FROM trials").fetchall()
    assert [state for (state,) in states].count("FAIL") == 1
    assert not any(state in ("RUNNING", "WAITING") for (state,) in states)


def test_what_was_told_before_the_kill_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with study(tmp_path) as opened:
        unit = opened.next(2)
        assert unit is not None
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Study, "_close", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
            opened.tell(unit, given(80), None)
    with study(tmp_path) as opened:
        assert [trial.accuracy for trial in opened.trials()] == [wilson(80, 100)]
        following = opened.next(2)
        assert following is not None
        assert following.number == 1


def test_a_trial_that_is_behind_at_the_same_share_of_its_training_is_given_up(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        for right in (60, 70, 80, 90, 90):
            unit = opened.next(20)
            assert unit is not None
            # While too few are finished nobody is behind.
            assert opened.hear(unit, Heard(1.0, 0.5, right / 100 - 0.2))
            opened.tell(unit, given(right), None)
        unit = opened.next(20)
        assert unit is not None
        assert opened.hear(unit, Heard(1.0, 0.25, 0.1))
        assert not opened.hear(unit, Heard(2.0, 0.5, 0.59))
        trial = opened.tell(unit, given(59, whole=False), None)
        good = opened.next(20)
        assert good is not None
        assert opened.hear(good, Heard(1.0, 0.5, 0.61))
    assert trial.state == "pruned"
    assert trial.after_epochs == ((1.0, 0.1), (2.0, 0.59))
    assert trial.reason == "behind the median after 2 of 2 epochs"
    assert trial.score is None


@pytest.mark.parametrize("killed", [False, True], ids=["worker lost", "process killed"])
def test_what_was_given_up_stays_so_when_its_reports_come_again(tmp_path: Path, killed: bool) -> None:
    """Others may have lowered the median since, and what was trained half-way only must not pass for finished."""
    with study(tmp_path) as opened:
        for _ in range(5):
            unit = opened.next(20)
            assert unit is not None
            opened.hear(unit, Heard(1.0, 0.5, 0.7))
            opened.tell(unit, given(90), None)
        unit, *others = (opened.next(20) for _ in range(8))
        assert unit is not None
        assert opened.hear(unit, Heard(0.5, 0.25, 0.6))
        assert not opened.hear(unit, Heard(1.0, 0.5, 0.6))
        for other in others:
            assert other is not None
            opened.hear(other, Heard(1.0, 0.5, 0.1))
            opened.tell(other, given(10), None)
        if not killed:
            assert opened.hear(unit, Heard(0.5, 0.25, 0.6))
            assert not opened.hear(unit, Heard(1.0, 0.5, 0.6))
    if killed:
        with study(tmp_path) as opened:
            again = opened.next(20)
            assert again == unit
            assert opened.hear(again, Heard(0.5, 0.25, 0.6))
            assert not opened.hear(again, Heard(1.0, 0.5, 0.6))


def test_nobody_is_given_up_where_that_is_not_wanted(tmp_path: Path) -> None:
    with study(tmp_path, prune=False) as opened:
        run(opened, 6)
        unit = opened.next(7)
        assert unit is not None
        assert opened.hear(unit, Heard(1.0, 0.5, 0.0))


def test_reports_that_are_heard_twice_count_once(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        unit = opened.next(1)
        assert unit is not None
        assert opened.hear(unit, Heard(1.0, 0.5, 0.5))
        assert opened.hear(unit, Heard(1.0, 0.5, 0.5))
        assert opened.tell(unit, given(50), None).after_epochs == ((1.0, 0.5),)


def test_a_trial_that_fails_keeps_its_reason_and_only_the_best_keeps_its_adapter(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        for number, right in enumerate((70, None, 80, 75)):
            unit = opened.next(4)
            assert unit is not None
            unit.folder.mkdir(parents=True)
            opened.tell(unit, None if right is None else given(right), "out of memory" if right is None else None)
            best = best_of(opened.trials())
            assert best is not None
            assert [path.name for path in (tmp_path / "trials").iterdir()] == [str(best.number)]
            assert best.number == (2 if number >= 2 else 0)
        failed = opened.trials()[1]
    assert (failed.state, failed.reason, failed.accuracy) == ("failed", "out of memory", None)
    assert failed.sentence.endswith(": failed: out of memory")


@pytest.mark.parametrize(
    ("about", "words"),
    [
        ({"dataset": "two", "space": "one"}, "is a sweep with another dataset; choose another run_dir"),
        ({"dataset": "two", "space": "two"}, "is a sweep with another dataset and another space;"),
    ],
)
def test_a_study_of_something_else_is_refused(tmp_path: Path, about: dict[str, str], words: str) -> None:
    with study(tmp_path) as opened:
        run(opened, 1)
    with pytest.raises(StorageError, match=words), study(tmp_path, about=about):
        pass
    with study(tmp_path) as opened:
        assert len(opened.trials()) == 1


def test_two_processes_are_not_at_work_in_one_folder(tmp_path: Path) -> None:
    with (
        study(tmp_path),
        pytest.raises(StorageError, match="another process is at work on the sweep"),
        study(tmp_path),
    ):
        pass
    with study(tmp_path):
        pass


def test_a_process_that_was_killed_leaves_the_folder_to_others(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from vlm_tune.experiments.database import alone
with alone(Path({str(tmp_path)!r}) / "running.db"):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -signal.SIGKILL
    with study(tmp_path):
        pass


def test_what_is_no_study_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / STUDY_FILE).write_bytes(b"somebody's notes, and long enough to be read as a header of something")
    with pytest.raises(StorageError, match=r"cannot use .*study.db: .*not a database"), study(tmp_path):
        pass
    assert (tmp_path / STUDY_FILE).read_bytes().startswith(b"somebody's notes")


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot use"), study(tmp_path / "file" / "sweep"):
        pass


def test_importance_says_what_made_trials_good(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        run(opened, 4)
        assert opened.importance() == {}
        run(opened, 12)
        importance = opened.importance()
    assert sum(importance.values()) == pytest.approx(1)
    assert importance["learning_rate"] > importance["r"]


def test_trials_that_are_all_alike_have_no_importance(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        while (unit := opened.next(6)) is not None:
            opened.tell(unit, given(80), None)
        assert opened.importance() == {}


def test_optuna_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with study(tmp_path) as opened:
        run(opened, 2)
    assert capfd.readouterr() == ("", "")


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"vlm-tune\[sweep\]"):
        Study(tmp_path, Space(WIDE, START, TASK), ABOUT, seed=0, prune=True)


def test_a_trial_survives_its_way_through_json(tmp_path: Path) -> None:
    with study(tmp_path) as opened:
        (trial,) = run(opened, 1)
    written: dict[str, Any] = json.loads(trial.model_dump_json())
    assert Trial.model_validate(written) == trial
    assert set(written["score"]["rightness"]) <= {"0", "1"}
