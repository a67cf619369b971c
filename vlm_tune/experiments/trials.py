"""One trial of a sweep: what was trained, and how it did on the photos held out; it is trained here or elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlm_tune import _processes
from vlm_tune.evaluation import Evaluator
from vlm_tune.experiments.backends import Report
from vlm_tune.experiments.dimensions import Value
from vlm_tune.experiments.noted import Rightness, cost_of
from vlm_tune.experiments.space import Setting
from vlm_tune.records import Estimate, Money, Record
from vlm_tune.statistics import wilson
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.failures import explained

if TYPE_CHECKING:
    from vlm_tune.data import Dataset
    from vlm_tune.training import Adapter, LoRATrainer

__all__ = ["Given", "Heard", "Score", "Training", "Trial", "TrialUnit", "forget", "said", "with_budget"]


class Score(Record):
    """How one training did on the photos held out.

    Examples:
        >>> print(Score(rightness=(True, False, True, True)).accuracy)
        0.750 [0.301, 0.954] (n=4)
    """

    rightness: Rightness
    """Whether each photo was answered right, in the order of the data; `01101...` in a file."""
    missing: NonNegativeInt = 0
    """Photos that could not be answered, such as one that does not decode; they are not right."""
    seconds: NonNegativeFloat = 0.0
    """How long the training took."""
    cost: Money | None = None
    """What the training cost; None where no price is known."""

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers, with its Wilson interval."""
        return wilson(sum(self.rightness), len(self.rightness) - self.missing)

    @classmethod
    def of(cls, adapter: Adapter, held_out: Dataset) -> Self:
        """Ask an adapter about the photos held out.

        Raises:
            TrainingError: Memory ran out.
            EvaluationError: Too many photos cannot be answered for there to be an accuracy.
        """
        with explained(adapter.config, adapter.base.device):
            evaluation = Evaluator(held_out).run(adapter)
        # It raises where too much is missing.
        _ = evaluation.accuracy
        rows = evaluation.table.select(["truth", "label", "outcome"]).to_pylist()
        return cls(
            rightness=tuple(row["label"] == row["truth"] for row in rows),
            missing=sum(row["outcome"] == "failed" for row in rows),
            seconds=adapter.training.seconds,
            cost=cost_of(adapter),
        )


class Trial(Record):
    """One trial of a sweep."""

    number: NonNegativeInt
    """Its place in the sweep, from 0."""
    state: Literal["finished", "pruned", "failed"]
    """Whether it was trained to its end, was given up half-way, or came to nothing."""
    values: Mapping[str, Value]
    """What was searched: a number or, of a choice, its words."""
    config: TrainConfig
    """The whole configuration."""
    max_pixels: PositiveInt
    """The image budget."""
    accuracy: Estimate | None = None
    """Accuracy on the photos held out; of a pruned trial after its last epoch. None where it failed."""
    score: Score | None = None
    """The answers behind it; None unless it is finished."""
    after_epochs: tuple[tuple[float, float], ...] = ()
    """Epochs done and accuracy after each of them."""
    seconds: NonNegativeFloat | None = None
    """How long the training took."""
    cost: Money | None = None
    """What the training cost; None where no price is known."""
    reason: str = ""
    """Why it failed or was given up."""
    is_start: bool = False
    """Whether it is the starting configuration."""

    @property
    def scale(self) -> float:
        """What the adapter's update is multiplied by: `TrainConfig.scale`."""
        return self.config.scale

    @property
    def sentence(self) -> str:
        """The trial in words."""
        words = {"finished": "", "pruned": f", given up {self.reason}", "failed": f"failed: {self.reason}"}[self.state]
        accuracy = self.accuracy.percent() if self.accuracy else ""
        return f"Trial {self.number} ({said(self.values)}): {accuracy}{words}"


@dataclass(frozen=True)
class TrialUnit:
    """A trial that is to be trained.

    Attributes:
        number: Its place in the sweep.
        values: What was chosen.
        setting: What they come to.
        folder: Where its adapter and checkpoints are.
    """

    number: int
    values: Mapping[str, Value]
    setting: Setting
    folder: Path


@dataclass(frozen=True)
class Heard:
    """What a trial tells after an epoch.

    Attributes:
        epochs: Epochs done.
        share: Part of its training that is done, from 0 to 1.
        accuracy: On the photos held out.
    """

    epochs: float
    share: float
    accuracy: float


@dataclass(frozen=True)
class Given:
    """What a trial came to, as long as it did not fail.

    Attributes:
        accuracy: On the photos held out, as far as it was trained.
        seconds: How long the training took.
        cost: What it cost.
        score: The answers; None of a pruned trial.
    """

    accuracy: Estimate
    seconds: float
    cost: Money | None
    score: Score | None


@dataclass(frozen=True)
class Training:
    """What the trials of a sweep have in common; it trains one of them.

    Attributes:
        trainer: Has the model.
        data: Photos to train on and photos held out; no others.
    """

    trainer: LoRATrainer
    data: Dataset

    def __call__(self, unit: TrialUnit, report: Report) -> Given:
        """Train, tell of each epoch, and ask about the photos held out if nobody said to stop.

        Raises:
            VlmTuneError: The training or the evaluation failed.
        """
        stopped, epochs = False, unit.setting.config.epochs

        def heard(done: float, accuracy: float) -> bool:
            nonlocal stopped
            # What is over cannot be given up.
            share = min(done / epochs, 1.0)
            stopped = not report(Heard(done, share, accuracy)) and share < 1
            return not stopped

        adapter, held_out = self.fit(unit.setting, unit.folder, heard)
        log = adapter.training
        stopped = _processes.same(stopped)
        score = None if stopped else Score.of(adapter, held_out)
        last = log.validation[-1].accuracy if score is None else score.accuracy
        return Given(last, log.seconds, cost_of(adapter), score)

    def fit(
        self, setting: Setting, folder: Path, after_epoch: Callable[[float, float], bool] | None
    ) -> tuple[Adapter, Dataset]:
        """Train one setting, and return its adapter and the photos held out, at its image budget."""
        data = with_budget(self.data, setting.max_pixels)
        trainer, held_out = self.trainer.with_config(setting.config), data.validation
        adapter = trainer.fit(data.train, validation=held_out, run_dir=folder, after_epoch=after_epoch)
        return adapter, held_out


def said(values: Mapping[str, Value]) -> str:
    """Return what was searched in words, e.g. `r 16, learning_rate 0.0002`."""
    return ", ".join(f"{name} {value if isinstance(value, str) else f'{value:.3g}'}" for name, value in values.items())


def with_budget(data: Dataset, max_pixels: int) -> Dataset:
    """Return the same photos at another image budget."""
    return data.with_task(data.task.model_copy(update={"max_pixels": max_pixels}))


def forget(folders: Iterable[Path]) -> None:
    """Remove what trials have left behind."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
