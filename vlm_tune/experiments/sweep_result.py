"""`SweepResult`: what the trials of a sweep came to, which was best, and whether that is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeInt

from vlm_tune import _console, _processes
from vlm_tune.errors import EvaluationError, TrainingError
from vlm_tune.experiments.confirming import Confirmation, Trainings, check_held_out, check_seeds, confirm
from vlm_tune.experiments.luck import best_of_many
from vlm_tune.experiments.space import Axis, Setting
from vlm_tune.experiments.study import best_of
from vlm_tune.experiments.trials import Training, Trial, said
from vlm_tune.records import Estimate, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.data import Dataset
    from vlm_tune.experiments.backends import Backend
    from vlm_tune.training import LoRATrainer

__all__ = ["SweepResult"]


class SweepResult(SavedRecord):
    """The trials of a sweep, made by `Sweep.run`."""

    saved_as: ClassVar[str] = "sweep"
    trials: tuple[Trial, ...]
    """All that have come to an end, in order."""
    axes: tuple[Axis, ...]
    """What was searched."""
    start: Setting
    """The starting configuration."""
    model: str
    """The base model's name."""
    held_out: str
    """Which photos the trials were judged on."""
    validation: float
    """Share of the training photos that is held out where there is no validation split."""
    seed: NonNegativeInt
    """What decided the choices, and the photos held out."""
    about: Mapping[str, str]
    """Fingerprints of the dataset, the model and the starting configuration."""
    importance: Mapping[str, float]
    """Each setting's share in what made trials good, by PED-ANOVA; empty with fewer than five finished trials."""
    run_dir: Path
    """Where the study is."""
    adapter: Path | None = None
    """The best trial's adapter, for `Adapter.load`; None where no trial was finished."""
    confirmation: Confirmation | None = None
    """What came of training winner and start again; None until `confirm`."""

    @property
    def finished(self) -> tuple[Trial, ...]:
        """The trials that were trained to their ends."""
        return tuple(trial for trial in self.trials if trial.state == "finished")

    @property
    def best(self) -> Trial:
        """The most accurate of the finished trials on the photos held out; the first of several.

        Raises:
            TrainingError: None was finished.
        """
        best = best_of(self.trials)
        if best is None:
            why = f"; the first: {self.trials[0].reason}" if self.trials else ""
            raise TrainingError(f"none of {len(self.trials)} trials was finished{why}")
        return best

    @property
    def num_compared(self) -> int:
        """Trials that have an accuracy: those the best was chosen from."""
        return sum(trial.accuracy is not None for trial in self.trials)

    @cached_property
    def expected(self) -> Estimate:
        """Accuracy to expect of the best trial's adapter on other photos: its own is the largest of several.

        Allowed for is that the photos held out chose the trial among those that were finished. With `keep="best"` they
        have chosen each trial's epoch as well, which is not allowed for: the value is then too high, the more so the
        more epochs and the fewer photos there are. `confirm` with photos of its own knows neither choice. See
        `vlm_tune.experiments.luck.best_of_many`.

        Raises:
            TrainingError: No trial was finished.
        """
        if self.best.score is None or len(self.finished) == 1:
            return _accuracy(self.best)
        return best_of_many([trial.score.rightness for trial in self.finished if trial.score])

    @property
    def sentence(self) -> str:
        """The outcome in words: the best trial, what its accuracy is worth, and whether it beats the start."""
        best = best_of(self.trials)
        if best is None:
            return f"None of {len(self.trials)} trials was finished."
        accuracy = _accuracy(best)
        parts = [
            f"Trial {best.number} ({said(best.values)}) is best of {self.num_compared}: {accuracy.percent()} of "
            f"{accuracy.n} photos held out."
        ]
        if len(self.finished) > 1:
            less = ", or less, as those held out chose the epoch of each trial too" if self._chose_epochs else ""
            expected = self.expected.percent()
            parts.append(f"The best of several is best partly by luck: expect {expected} on other photos{less}.")
        if best.is_start:
            parts.append("It is the starting configuration.")
        elif self.confirmation is None:
            parts.append("Whether it beats the starting configuration is not established: confirm() trains both again.")
        else:
            parts.append(self.confirmation.sentence)
            if self._chose_epochs and not self.confirmation.fresh:
                parts.append("The epoch of each training was chosen by those photos too, which is not allowed for.")
        return " ".join(parts)

    @property
    def _chose_epochs(self) -> bool:
        return self.start.config.keep == "best"

    def confirm(
        self,
        trainer: LoRATrainer,
        data: Dataset,
        *,
        seeds: Sequence[int] = (1, 2, 3),
        held_out: Dataset | None = None,
        run_dir: Path | str | None = None,
        backend: Backend | None = None,
    ) -> SweepResult:
        """Train the winner and the starting configuration again with other seeds, and return this with the verdict.

        Both are trained on the photos that the trials were trained on. A confirmation that was killed goes on. Where
        the starting configuration won there is nothing to confirm.

        Args:
            trainer: As it was for the sweep.
            data: As they were for the sweep.
            seeds: Three or more; not the seed of the starting configuration, which the winner was chosen with.
            held_out: Photos to judge on that the sweep has not seen; None takes those it held out, and an interval that
                allows for the choice of the trial. With `keep="best"` those also choose the epoch of each training,
                which favours the side with more epochs: give others there.
            run_dir: Folder for what is finished; `confirm` in that of the sweep if None.
            backend: Where they are trained; None trains them here.

        Raises:
            TrainingError: No trial was finished, the seeds do not do, or one of the trainings failed.
            EvaluationError: Trainer or data are not those of the sweep, or it has seen photos of `held_out`.
            StorageError: The disk is full.
        """
        from vlm_tune.experiments.sweep import about_of
        from vlm_tune.experiments.sweep import held_out as parts_of

        best = self.best
        check_seeds(seeds, self.start.config.seed)
        parts, _ = parts_of(data, share=self.validation, seed=self.seed)
        others = [name for name, value in about_of(trainer, parts).items() if self.about[name] != value]
        if others:
            raise EvaluationError(f"the sweep had another {' and another '.join(others)}; give what it was run with")
        if held_out is not None:
            check_held_out(held_out, parts)
        if best.is_start:
            _console.notice("The starting configuration came out best: there is nothing to confirm.")
            return self
        folder = (self.run_dir / "confirm" if run_dir is None else Path(run_dir)).absolute()
        work = Trainings(Training(trainer, parts), held_out, folder)
        winner = Setting(config=best.config, max_pixels=best.max_pixels)
        scores = confirm(work, {"start": self.start, "winner": winner}, seeds, backend)
        confirmation = Confirmation(
            seeds=tuple(seeds),
            winner=scores["winner"],
            start=scores["start"],
            num_compared=self.num_compared,
            chosen_at=_accuracy(best),
            fresh=held_out is not None,
        )
        return self.model_copy(update={"confirmation": confirmation})

    def frame(self) -> pd.DataFrame:
        """Return a row for each trial: what was searched, both scales, accuracy with interval, time, cost, reason."""
        import pandas as pd

        rows = []
        for trial in self.trials:
            config, accuracy = trial.config, trial.accuracy
            rows.append(
                {
                    "trial": trial.number,
                    "state": trial.state,
                    **trial.values,
                    "r": config.r,
                    "lora_alpha": config.lora_alpha,
                    "use_rslora": config.use_rslora,
                    "alpha_over_r": config.lora_alpha / config.r,
                    "alpha_over_sqrt_r": config.lora_alpha / config.r**0.5,
                    "scale": trial.scale,
                    "accuracy": None if accuracy is None else accuracy.value,
                    "low": None if accuracy is None else accuracy.low,
                    "high": None if accuracy is None else accuracy.high,
                    "n": None if accuracy is None else accuracy.n,
                    "epochs_done": trial.after_epochs[-1][0] if trial.after_epochs else 0.0,
                    "seconds": trial.seconds,
                    "cost_usd": None if trial.cost is None else trial.cost.usd,
                    "reason": trial.reason,
                }
            )
        return pd.DataFrame(rows)

    def _rich(self) -> RenderableType:
        """Draw the trials, the best first, and what is established."""
        from vlm_tune.experiments.sweep_display import sweep_display

        return sweep_display(self)

    def plot(self) -> Figure:
        """Draw every trial as a line through its values to its accuracy."""
        from vlm_tune.experiments.sweep_display import lines_of
        from vlm_tune.plots.sweeps import parallel_coordinates

        n = max((trial.accuracy.n for trial in self.trials if trial.accuracy), default=0)
        return parallel_coordinates(*lines_of(self), n=n)

    def plot_importance(self) -> Figure:
        """Draw each setting's share in what made trials good.

        Raises:
            TrainingError: There are too few finished trials, or all are equally accurate.
        """
        from vlm_tune.plots.sweeps import importance_bars

        if not self.importance:
            raise TrainingError("importance takes five finished trials that are not all equally accurate")
        return importance_bars(self.importance, num_trials=len(self.finished))

    @_processes.by_one
    def save(self, path: Path | str) -> Path:
        """Write everything to one JSON file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return super().save(path)


def _accuracy(trial: Trial) -> Estimate:
    assert trial.accuracy is not None, "a finished trial has an accuracy"
    return trial.accuracy
