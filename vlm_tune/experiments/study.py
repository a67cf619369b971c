"""The memory of a sweep: an Optuna study in a SQLite file, which only the caller's process reads and writes.

A trial lives here from the moment it is asked for. What was asked for by a process that died is marked failed and asked
for again with the same values, so that a sweep that was killed ends as an unbroken one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _console
from vlm_tune._imports import require
from vlm_tune.errors import StorageError
from vlm_tune.experiments.database import alone, opened, quietly, told
from vlm_tune.experiments.dimensions import Value
from vlm_tune.experiments.space import Setting, Space
from vlm_tune.experiments.trials import Given, Heard, Trial, TrialUnit, forget

if TYPE_CHECKING:
    from optuna import Trial as OptunaTrial
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

__all__ = ["STUDY_FILE", "Study", "best_of"]

STUDY_FILE = "study.db"

_FIRST_TRIALS = 10
"""Trials at random before their outcomes say where to look."""

_BEFORE_PRUNING = 5
"""Finished trials before the first one may be given up, and how many of them must have come as far."""

_GIVEN_UP = "given up at"
"""What a trial keeps the share of its training by at which it was given up."""

_SHARES = 1000
"""A trial is compared with others at the same thousandth of their trainings: where their learning rates are alike."""


class Study:
    """Chooses trials and remembers what came of them.

    Args:
        folder: Where the study and the adapters are.
        space: What is searched.
        about: What the sweep is about, by name; a study about anything else is refused.
        seed: Decides what is chosen.
        prune: Whether trials that are behind are given up.

    Raises:
        MissingExtraError: Optuna is not installed.
        StorageError: When it is opened: it is about something else, in use, damaged, or cannot be written.
    """

    def __init__(self, folder: Path, space: Space, about: Mapping[str, str], *, seed: int, prune: bool) -> None:
        require("optuna", extra="sweep", purpose="vt.Sweep")
        self.folder = folder
        self._space, self._about, self._seed, self._prune = space, dict(about), seed, prune
        self._asked: dict[int, OptunaTrial] = {}
        self._open = ExitStack()

    def open(self) -> None:
        """Open the file, and take in what a process that died has left."""
        try:
            with told(self.folder / STUDY_FILE):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._open.enter_context(alone(self.folder / "running.db"))
                self._study = self._open.enter_context(opened(self.folder / STUDY_FILE, pruner=_pruner(self._prune)))
                self._check()
                self._bury()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and let others open it."""
        self._open.close()

    def next(self, num_trials: int) -> TrialUnit | None:
        """Choose the next of so many trials; None when all are chosen, or when the space has no other.

        The starting configuration comes first, if the space holds it.

        A choice that was made before is made again at random: the same training would come to the same.

        Raises:
            StorageError: The study cannot be written.
        """
        with told(self.folder / STUDY_FILE), quietly():
            if len(self._chosen()) >= min(num_trials, self._space.num_points):
                return None
            place = self._space.place_of_start()
            if place is not None and not self._alive():
                self._study.enqueue_trial(place, user_attrs={"number": 0})
            trial = self._draw(len(self._chosen()))
            number: int = trial.user_attrs["number"]
        self._asked[number] = trial
        values: dict[str, Value] = dict(trial.params)
        folder = self.folder.absolute() / "trials" / str(number)
        return TrialUnit(number, values, self._space.setting(values), folder)

    def hear(self, unit: TrialUnit, message: Heard) -> bool:
        """Take note of an epoch, and return whether the trial is to go on.

        A trial is given up when its best accuracy so far is below the median of the finished ones at the same share of
        their training, and stays so: what a lost worker had reported comes again when the median may be another.
        """
        trial = self._asked[unit.number]
        with told(self.folder / STUDY_FILE):
            noted = dict(trial.user_attrs.get("epochs", {}))
            trial.set_user_attr("epochs", {**noted, f"{message.epochs:.6g}": message.accuracy})
            step = round(_SHARES * message.share)
            if step not in self._study.get_trials(deepcopy=False)[trial.number].intermediate_values:
                trial.report(message.accuracy, step)
            if _GIVEN_UP not in trial.user_attrs and self._prune and trial.should_prune():
                trial.set_user_attr(_GIVEN_UP, message.share)
            return bool(message.share < trial.user_attrs.get(_GIVEN_UP, math.inf))

    def tell(self, unit: TrialUnit, given: Given | None, error: str | None) -> Trial:
        """Take note of what came of a trial, and return it; adapters of those that were not the best are removed.

        Raises:
            StorageError: The study cannot be written.
        """
        asked = self._asked.pop(unit.number)
        trial = _record(unit, given, error, asked.user_attrs.get("epochs", {}), start=self._space.start)
        with told(self.folder / STUDY_FILE), quietly():
            asked.set_user_attr("trial", trial.model_dump(mode="json"))
            self._close(asked.number, trial)
        self._tidy()
        return trial

    def trials(self) -> tuple[Trial, ...]:
        """Return all trials that have come to an end, in order."""
        told = [trial.user_attrs["trial"] for trial in self._alive() if "trial" in trial.user_attrs]
        return tuple(sorted((Trial.model_validate(one) for one in told), key=lambda trial: trial.number))

    def importance(self) -> dict[str, float]:
        """Return each setting's share in what made trials good, by PED-ANOVA; empty where there are too few trials.

        Source: S. Watanabe, A. Bansal, F. Hutter, IJCAI 2023, arXiv 2304.10255.
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        finished = [trial for trial in self.trials() if trial.state == "finished" and trial.accuracy]
        if len(finished) < _BEFORE_PRUNING or len({trial.accuracy.value for trial in finished if trial.accuracy}) < 2:
            return {}
        with quietly():
            found = get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator())
        return {name: float(share) for name, share in found.items()}

    def _draw(self, number: int) -> OptunaTrial:
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        known = [dict(trial.params) for trial in self._chosen()]
        # Of a sampler that goes on after a kill nobody knows how far it was: each choice has a seed of its own.
        self._study.sampler = TPESampler(n_startup_trials=_FIRST_TRIALS, seed=_mixed(self._seed, number))
        trial = self._study.ask(self._space.distributions())
        if "number" not in trial.user_attrs and trial.params in known:
            self._study.tell(trial, state=TrialState.FAIL)
            self._study.enqueue_trial(self._elsewhere(known, number), user_attrs={"number": number})
            trial = self._study.ask(self._space.distributions())
        if "number" not in trial.user_attrs:
            trial.set_user_attr("number", number)
        return trial

    def _elsewhere(self, known: list[dict[str, Any]], number: int) -> dict[str, Any]:
        """Return values that were not tried, drawn at random."""
        import optuna

        scratch = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=_mixed(self._seed, number)))
        while True:
            values = dict(scratch.ask(self._space.distributions()).params)
            if values not in known:
                return values

    def _tidy(self) -> None:
        trials = self.trials()
        best = best_of(trials)
        done = [trial.number for trial in trials if best is None or trial.number != best.number]
        forget(self.folder / "trials" / str(number) for number in done)

    def _close(self, place: int, trial: Trial) -> None:
        """Let the study know what came of the trial at a place in it."""
        from optuna.trial import TrialState

        states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        value = trial.accuracy.value if trial.state == "finished" and trial.accuracy else None
        self._study.tell(place, value, state=states[trial.state])

    def _alive(self) -> list[FrozenTrial]:
        """Return all trials but those that died and those that would have repeated others."""
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if "trial" in trial.user_attrs or not trial.state.is_finished()]

    def _chosen(self) -> list[FrozenTrial]:
        """Return the trials that are at work or have come to an end."""
        return [trial for trial in self._alive() if trial.state.name != "WAITING"]

    def _check(self) -> None:
        known: dict[str, str] | None = self._study.user_attrs.get("about")
        if known is None:
            self._study.set_user_attr("about", self._about)
            return
        others = [name for name, value in self._about.items() if known.get(name) != value]
        if others:
            raise StorageError(
                f"{self.folder / STUDY_FILE} is a sweep with {_and(f'another {name}' for name in others)}; choose "
                "another run_dir for this one, or go on with what that one had"
            )

    def _bury(self) -> None:
        """Mark trials of a process that died as failed, and have them tried again."""
        from optuna.trial import TrialState

        dead = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in dead:
            if "trial" in trial.user_attrs:
                self._close(trial.number, Trial.model_validate(trial.user_attrs["trial"]))
                continue
            self._study.tell(trial.number, state=TrialState.FAIL)
            known = {name: trial.user_attrs[name] for name in ("number", _GIVEN_UP) if name in trial.user_attrs}
            if "number" in known:
                self._study.enqueue_trial(trial.params, user_attrs=known)
        if dead:
            _console.notice(f"{len(dead)} trials of a process that died are tried again.")


def _record(
    unit: TrialUnit, given: Given | None, error: str | None, epochs: Mapping[str, float], *, start: Setting
) -> Trial:
    pruned = given is not None and given.score is None
    after = tuple(sorted((float(done), accuracy) for done, accuracy in epochs.items()))
    behind = f"behind the median after {after[-1][0]:g} of {unit.setting.config.epochs:g} epochs" if pruned else ""
    return Trial(
        number=unit.number,
        state="failed" if given is None else "pruned" if pruned else "finished",
        values=unit.values,
        config=unit.setting.config,
        max_pixels=unit.setting.max_pixels,
        accuracy=given.accuracy if given else None,
        score=given.score if given else None,
        after_epochs=after,
        seconds=given.seconds if given else None,
        cost=given.cost if given else None,
        reason=error or behind,
        is_start=unit.setting == start,
    )


def best_of(trials: tuple[Trial, ...]) -> Trial | None:
    """Return the most accurate of the finished trials; the first of several."""
    finished = [(trial.accuracy.value, -trial.number, trial) for trial in trials if trial.score and trial.accuracy]
    return max(finished, key=lambda one: one[:2])[2] if finished else None


def _pruner(prune: bool) -> BasePruner:
    from optuna.pruners import MedianPruner, NopPruner

    return MedianPruner(_BEFORE_PRUNING, n_min_trials=_BEFORE_PRUNING) if prune else NopPruner()


def _mixed(seed: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:4])


def _and(words: Iterator[str]) -> str:
    return " and ".join(words)
