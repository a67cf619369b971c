"""Whether the winner of a sweep is better: it and the starting configuration are trained again with other seeds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import NonNegativeInt, PositiveInt, ValidationError

from vlm_tune import _console, _files, _processes
from vlm_tune.errors import EvaluationError, StorageError, TrainingError
from vlm_tune.experiments.backends import Backend, LocalBackend, Report
from vlm_tune.experiments.luck import difference_over_seeds
from vlm_tune.experiments.noted import rows_of
from vlm_tune.experiments.space import Setting
from vlm_tune.experiments.trials import Score, Training, forget, with_budget
from vlm_tune.records import Estimate, Record

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["Confirmation", "Side", "Trainings", "check_held_out", "check_seeds", "confirm"]

Side = Literal["start", "winner"]

_LEAST_SEEDS = 3


class Confirmation(Record):
    """The winner of a sweep and the starting configuration, each trained again with the same other seeds."""

    seeds: tuple[NonNegativeInt, ...]
    """What both were trained with."""
    winner: tuple[Score, ...]
    """How the winner did, seed by seed."""
    start: tuple[Score, ...]
    """How the starting configuration did, seed by seed."""
    num_compared: PositiveInt
    """Trials that the winner was chosen from."""
    chosen_at: Estimate
    """The accuracy by which it was chosen."""
    fresh: bool
    """Whether the photos are others than those it was chosen by."""

    @cached_property
    def difference(self) -> Estimate:
        """Winner's accuracy less that of the starting configuration, over photos and seeds, with its 95 % interval.

        See `vlm_tune.experiments.luck.difference_over_seeds`.
        """
        return self._difference(1)

    @cached_property
    def allowing_for_choice(self) -> Estimate:
        """The difference with the interval that decides: wider where the same photos chose the winner among several.

        On other photos it is `difference`.
        """
        return self.difference if self.fresh else self._difference(self.num_compared)

    @property
    def verdict(self) -> Literal["better", "worse", "not_established"]:
        """What is established about the winner."""
        if self.allowing_for_choice.low > 0:
            return "better"
        return "worse" if self.allowing_for_choice.high < 0 else "not_established"

    @property
    def winner_accuracy(self) -> float:
        """Mean accuracy of the winner over the seeds."""
        return _mean(self.winner)

    @property
    def start_accuracy(self) -> float:
        """Mean accuracy of the starting configuration over the seeds."""
        return _mean(self.start)

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers it rests on."""
        gap = self.difference.value
        points = f"{abs(100 * gap):.1f} points {'ahead of' if gap > 0 else 'behind'}" if gap else "level with"
        seeds = f"seeds {', '.join(map(str, self.seeds))}"
        words = {"better": "better", "worse": "worse", "not_established": "not established"}[self.verdict]
        parts = [
            f"Trained again with {seeds}, the winner is {points} the starting configuration on {self.difference.n} "
            f"photos, 95 % interval {_ends(self.difference)}: {words}."
        ]
        if not self.fresh and self.num_compared > 1:
            parts.append(
                f"The same photos chose it among {self.num_compared}: with that allowed for the interval is "
                f"{_ends(self.allowing_for_choice)}, which decides."
            )
        parts.append(
            f"It was chosen at {100 * self.chosen_at.value:.1f} % and comes to {100 * self.winner_accuracy:.1f} %, the "
            f"starting configuration to {100 * self.start_accuracy:.1f} %."
        )
        return " ".join(parts)

    def _difference(self, num_compared: int) -> Estimate:
        winner, start = ([one.rightness for one in side] for side in (self.winner, self.start))
        return difference_over_seeds(winner, start, num_compared=num_compared)


@dataclass(frozen=True)
class Again:
    """One training of a confirmation.

    Attributes:
        side: Whether it is the winner's.
        seed: What it is trained with.
        setting: The whole setting.
    """

    side: Side
    seed: int
    setting: Setting


@dataclass(frozen=True)
class Trainings:
    """What the trainings of a confirmation have in common; it does one of them.

    Attributes:
        training: Trains a setting.
        judged_on: Other photos than those held out of the sweep; None takes these.
        folder: Where finished ones are kept.
    """

    training: Training
    judged_on: Dataset | None
    folder: Path

    def __call__(self, unit: Again, report: Report) -> Score:
        """Train, judge, keep what came of it, and return it.

        Raises:
            VlmTuneError: The training or the evaluation failed.
        """
        path = self._path(unit)
        adapter, held_out = self.training.fit(unit.setting, path.with_suffix(""), None)
        judged_on = held_out if self.judged_on is None else with_budget(self.judged_on, unit.setting.max_pixels)
        score = Score.of(adapter, judged_on)
        _processes.by_one(_files.write_json)(path, score.model_dump(mode="json"))
        _processes.by_one(forget)([path.with_suffix("")])
        return score

    def kept(self, unit: Again) -> Score | None:
        """Return what came of a training that is done; None for one that is not.

        Raises:
            StorageError: The file holds something else.
        """
        path = self._path(unit)
        if not path.exists():
            return None
        try:
            return Score.model_validate(_files.read_json(path))
        except ValidationError as error:
            raise StorageError(f"{path} holds something else than a score; move it away and run again") from error

    def _path(self, unit: Again) -> Path:
        data, base = self.training.data, self.training.trainer.base.fingerprint
        # Another sweep may hold others of the same photos out.
        rows = [rows_of(part) for part in (data.train, data.validation, self.judged_on or ())]
        everything = [base, data.task.fingerprint, unit.setting.config.fingerprint, unit.setting.max_pixels, rows]
        inputs = hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
        return self.folder / f"{unit.side}-{unit.seed}-{inputs}.json"


def check_seeds(seeds: Sequence[int], known: int) -> None:
    """Refuse seeds that say nothing about luck.

    Args:
        seeds: What to train with.
        known: The seed that the winner was chosen with.

    Raises:
        TrainingError: There are fewer than three, one is there twice, or one is that of the sweep.
    """
    if len(set(seeds)) < len(seeds) or len(seeds) < _LEAST_SEEDS:
        raise TrainingError(f"a winner is confirmed with three or more different seeds, not {tuple(seeds)}")
    if known in seeds:
        raise TrainingError(f"the winner was chosen with seed {known}; confirm it with others than {tuple(seeds)}")


def confirm(
    work: Trainings, sides: dict[Side, Setting], seeds: Sequence[int], backend: Backend | None
) -> dict[Side, tuple[Score, ...]]:
    """Return how both sides did with each seed; what is done is not done again.

    Raises:
        TrainingError: One of the trainings failed.
        StorageError: A file of an earlier call holds something else.
    """
    units = [Again(side, seed, _seeded(setting, seed)) for seed in seeds for side, setting in sides.items()]
    known = [(unit, _processes.by_one(work.kept)(unit)) for unit in units]
    scores = {(unit.side, unit.seed): score for unit, score in known if score is not None}
    with _console.progress("Confirm", total=len(units)) as bar:
        bar.advance(len(scores))
        left = [unit for unit, score in known if score is None]
        for outcome in (backend or LocalBackend()).run(work, left):
            unit = outcome.unit
            if outcome.result is None:
                raise TrainingError(f"the {unit.side} with seed {unit.seed} could not be trained: {outcome.error}")
            scores[unit.side, unit.seed] = outcome.result
            bar.advance()
            _console.notice(f"{unit.side}, seed {unit.seed}: {outcome.result.accuracy.percent()}")
    return {side: tuple(scores[side, seed] for seed in seeds) for side in sides}


def check_held_out(photos: Dataset, known: Dataset) -> None:
    """Refuse photos that the sweep has seen.

    Raises:
        EvaluationError: Some are those of the sweep, or they answer another question.
    """
    seen = {example.content_hash for example in known}
    both = sum(example.content_hash in seen for example in photos)
    if both:
        raise EvaluationError(
            f"{both} of {len(photos)} photos to confirm on were trained on or held out in the sweep; give others"
        )
    if photos.task.classes != known.task.classes or photos.task.prompt != known.task.prompt:
        raise EvaluationError("the photos to confirm on answer another question than those of the sweep")


def _seeded(setting: Setting, seed: int) -> Setting:
    return Setting(config=setting.config.model_copy(update={"seed": seed}), max_pixels=setting.max_pixels)


def _mean(scores: Sequence[Score]) -> float:
    return sum(one.accuracy.value for one in scores) / len(scores)


def _ends(estimate: Estimate) -> str:
    return f"[{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
