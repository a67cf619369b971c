"""`Sweep`: which settings train best, judged on photos held out and never on the test split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune import _console, _processes
from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.experiments.backends import Backend, LocalBackend
from vlm_tune.experiments.dimensions import Dimension
from vlm_tune.experiments.noted import rows_of
from vlm_tune.experiments.space import Space, check_space
from vlm_tune.experiments.study import Study, best_of
from vlm_tune.experiments.sweep_result import SweepResult
from vlm_tune.experiments.trials import Training, TrialUnit

if TYPE_CHECKING:
    from vlm_tune.training import LoRATrainer

__all__ = ["Sweep", "about_of", "held_out"]


class Sweep:
    """Searches settings of `TrainConfig` and the image budget for those that train best.

    Optuna's TPE sampler chooses the trials: the first ten at random, the others by what came of those before. The
    starting configuration is the first trial, if the space holds it.

    Args:
        space: Setting to its values: `Choice`, `Uniform` or `LogUniform`. Names are fields of `TrainConfig` (`r`,
            `lora_alpha`, `use_rslora`, `use_dora`, `learning_rate`, `lr_scheduler`, `warmup_ratio`, `weight_decay`,
            `max_grad_norm`, `epochs`, `batch_size`, `lora_dropout`, `label_smoothing`, `class_weights`, `sampling`,
            `regions`, `kinds`, `augment`) or the task's `max_pixels`.
        num_trials: How many are trained; fewer, if the space has no more.
        validation: Share of the training photos that is held out where the data have no validation split.
        prune: Give trials up that are behind: after an epoch, those whose best accuracy so far is below the median of
            the finished trials at the same share of their training, once there are five.
        seed: Decides the choices, and the photos held out.

    Raises:
        TrainingError: The space is empty, a name is unknown or not searched, or a number is impossible.

    Examples:
        >>> from vlm_tune.experiments import Choice, LogUniform
        >>> sweep = Sweep({"r": Choice(16, 64), "learning_rate": LogUniform(5e-5, 1e-3)}, num_trials=12)
        >>> result = sweep.run(trainer, data, run_dir="runs/sweep")  # doctest: +SKIP
        >>> result = result.confirm(trainer, data)  # doctest: +SKIP
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        *,
        num_trials: int = 20,
        validation: float = 0.2,
        prune: bool = True,
        seed: int = 0,
    ) -> None:
        check_space(space)
        if num_trials < 1 or not 0 < validation < 1:
            raise TrainingError(
                f"Sweep: num_trials is at least 1 and validation a share between 0 and 1, not {num_trials} and "
                f"{validation}"
            )
        self.space = dict(space)
        self.num_trials = num_trials
        self.validation = validation
        self.prune = prune
        self.seed = seed

    def run(
        self, trainer: LoRATrainer, data: Dataset, *, run_dir: Path | str, backend: Backend | None = None
    ) -> SweepResult:
        """Train and judge the trials that are not there yet, and return all of them.

        A sweep that was killed goes on; a trial that was at work then is marked failed and tried again. A trial that
        runs out of memory, or fails otherwise, is kept with its reason, and the others go on. Of the adapters only that
        of the best trial stays.

        Args:
            trainer: The model, and the starting configuration.
            data: The photos; of these, `data.train` and `data.validation` are looked at, and nothing else. Without a
                validation split a part of the training photos is held out: stratified, groups kept whole.
            run_dir: Folder for the study and the adapters; several machines need one that all see.
            backend: Where trials are trained; None trains them here, one after the other.

        Raises:
            TrainingError: A value is impossible, or the photos cannot be trained on.
            SplitError: There is no training split, or it is too small to hold a part of it out.
            StorageError: The folder has a sweep of something else, another process is at work there, or the disk is
                full.
            StoppedError: The process was asked to end; the same call goes on.
            MissingExtraError: Optuna is not installed.
        """
        data, told = held_out(data, share=self.validation, seed=self.seed)
        space = Space(self.space, trainer.config, data.task)
        for setting in space.settings():
            trainer.with_config(setting.config).check(data.train, validation=data.validation)
        _console.notice(told)
        about = {**about_of(trainer, data), "space": space.written, "seed": f"seed ({self.seed})"}
        study = Study(Path(run_dir), space, about, seed=self.seed, prune=self.prune)
        _processes.by_one(study.open)()
        try:
            self._train(study, Training(trainer, data), backend or LocalBackend())
            return _processes.by_one(self._result)(study, space, trainer, data, told)
        finally:
            study.close()

    def _train(self, study: Study, training: Training, backend: Backend) -> None:
        with _console.progress("Sweep", total=self.num_trials, timed=False) as bar:
            done = _processes.by_one(study.trials)()
            bar.advance(len(done))
            for outcome in backend.run(training, self._units(study), heard=study.hear):
                trial = _processes.by_one(study.tell)(outcome.unit, outcome.result, outcome.error)
                best = best_of(_processes.by_one(study.trials)())
                bar.advance()
                if best is not None:
                    bar.note(f"best {best.accuracy}")
                _console.notice(trial.sentence)

    def _units(self, study: Study) -> Iterator[TrialUnit]:
        while (unit := _processes.by_one(study.next)(self.num_trials)) is not None:
            yield unit

    def _result(self, study: Study, space: Space, trainer: LoRATrainer, data: Dataset, told: str) -> SweepResult:
        best = best_of(study.trials())
        return SweepResult(
            trials=study.trials(),
            axes=space.axes,
            start=space.start,
            model=trainer.base.name,
            held_out=told,
            validation=self.validation,
            seed=self.seed,
            about=about_of(trainer, data),
            importance=study.importance(),
            run_dir=study.folder,
            adapter=None if best is None else study.folder / "trials" / str(best.number) / "adapter",
        )


def held_out(data: Dataset, *, share: float, seed: int) -> tuple[Dataset, str]:
    """Return the photos to train on and those held out, and in words where these come from; nothing else is in it.

    Args:
        data: The data; its test split is left behind.
        share: Part of the training photos that is held out where there is no validation split.
        seed: Decides which.

    Raises:
        SplitError: There is no training split, or it is too small.
    """
    train = data.train
    if data.has_split("validation"):
        examples = [*train, *data.validation]
        splits = {example.id: data.splits[example.id] for example in examples}
        parts = Dataset(examples, task=data.task, splits=splits)
        return parts, f"{len(parts.validation)} photos of the validation split"
    parts = Dataset(train.examples, task=data.task).split(test=0.0, validation=share, seed=seed)
    whole = f"{len(parts.validation)} of {len(train)} training photos, as there is no validation split (seed {seed})"
    return parts, whole


def about_of(trainer: LoRATrainer, data: Dataset) -> dict[str, str]:
    """Return what decides what a setting comes to, by name: dataset, model and starting configuration."""
    photos = [data.task.fingerprint, rows_of(data.train), rows_of(data.validation)]
    return {
        "dataset": hashlib.sha256(json.dumps(photos).encode()).hexdigest()[:16],
        "model": trainer.base.fingerprint,
        "starting configuration": trainer.config.fingerprint,
    }
