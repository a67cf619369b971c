"""How a training went: losses, what the validation examples said, how far the model moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import wilson
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.proving.audit import TokenAudit
from vlm_tune.training.proving.movement import Movement
from vlm_tune.training.running.selection import best

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from peft import PeftModel

    from vlm_tune.training.running.watch import History

__all__ = ["TrainingLog", "ValidationResult", "log_of"]


class ValidationResult(Record):
    """What the validation examples said after an epoch."""

    step: NonNegativeInt
    """Optimizer steps taken."""
    loss: NonNegativeFloat | None
    """Of the right answers, in nats per token; None where answers are generated and not scored."""
    accuracy: Estimate
    """Share of right answers, by the functions that evaluate the adapter; of a multi-label task the exact match."""


class TrainingLog(Record):
    """How the training went."""

    losses: tuple[float, ...]
    """Loss of every optimizer step, in nats per trained token."""
    learning_rates: tuple[float, ...]
    """Learning rate of every optimizer step."""
    validation: tuple[ValidationResult, ...] = ()
    """What the validation examples said after every epoch; empty without such examples."""
    kept_step: NonNegativeInt
    """Step whose state the adapter is: the last one, or the one most accurate on the validation examples."""
    movement: tuple[Movement, ...] = ()
    """How far each region moved."""
    num_examples: PositiveInt
    """Training examples."""
    epochs: float
    """Passes over them."""
    seconds: NonNegativeFloat
    """Time spent reading photos and training, without loading the model; interrupted runs included."""
    foreseen_seconds: NonNegativeFloat | None = None
    """What `seconds` was told to become after a few steps; None in runs of a few steps."""
    resumed_from: NonNegativeInt = 0
    """Step at which the run went on after an interruption; 0 for an unbroken one."""
    trained_parameters: PositiveInt
    """Parameters of the adapter."""
    total_parameters: PositiveInt
    """Parameters of the base model."""
    audit: TokenAudit
    """Which tokens the loss saw."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps."""
        return len(self.losses)

    @property
    def final_loss(self) -> float:
        """Mean loss of the last tenth of the steps."""
        tail = self.losses[-max(1, len(self.losses) // 10) :]
        return sum(tail) / len(tail)

    @property
    def samples_per_second(self) -> float:
        """Training examples per second."""
        return self.num_examples * self.epochs / self.seconds if self.seconds else 0.0

    @property
    def trained_share(self) -> float:
        """Adapter parameters over base parameters."""
        return self.trained_parameters / self.total_parameters

    @property
    def kept(self) -> ValidationResult | None:
        """What the validation examples said of the state that the adapter is; None if they were not asked then."""
        return next((one for one in self.validation if one.step == self.kept_step), None)

    def frame(self) -> pd.DataFrame:
        """Return one row an optimizer step: step, loss, learning rate, validation loss and accuracy where known."""
        import pandas as pd

        steps = pd.Index(range(1, self.num_steps + 1), name="step")
        frame = pd.DataFrame({"loss": self.losses, "learning_rate": self.learning_rates}, index=steps)
        at = [one.step for one in self.validation]
        frame["validation_loss"] = pd.Series([one.loss for one in self.validation], index=at, dtype=float)
        frame["validation_accuracy"] = pd.Series([one.accuracy.value for one in self.validation], index=at, dtype=float)
        return frame.reset_index()

    def plot(self) -> Figure:
        """Draw the loss and, where validation examples were asked, their loss and accuracy."""
        from vlm_tune import plots

        known = [(one.step, one.loss) for one in self.validation if one.loss is not None]
        return plots.loss_curve(
            range(1, self.num_steps + 1),
            self.losses,
            validation=([step for step, _ in known], [loss for _, loss in known]) if known else None,
            accuracy=[(one.step, one.accuracy) for one in self.validation],
            kept=self.kept_step if self.validation else None,
        )


def log_of(
    config: TrainConfig,
    num_examples: int,
    history: History,
    audit: TokenAudit,
    moved: tuple[Movement, ...],
    wrapped: PeftModel,
) -> TrainingLog:
    """Return the record of a training that is over.

    Args:
        config: Its configuration.
        num_examples: How many examples it had.
        history: What happened.
        audit: What was trained of an example.
        moved: How far each region moved.
        wrapped: The trained model.
    """
    trained, total = wrapped.get_nb_trainable_parameters()
    return TrainingLog(
        losses=tuple(history.losses),
        learning_rates=tuple(history.learning_rates),
        validation=tuple(
            ValidationResult(step=one.step, loss=one.loss, accuracy=wilson(one.num_correct, one.num_examples))
            for one in history.validation
        ),
        kept_step=history.validation[best(history.validation)].step if config.keep == "best" else len(history.losses),
        movement=moved,
        num_examples=num_examples,
        epochs=min(config.epochs, len(history.losses) / config.steps_per_epoch(num_examples)),
        seconds=history.seconds,
        foreseen_seconds=history.foreseen_seconds,
        resumed_from=history.resumed_from,
        trained_parameters=trained,
        total_parameters=total - trained,
        audit=audit,
    )
