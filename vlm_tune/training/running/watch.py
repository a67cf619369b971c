"""What is looked at while a model trains: gradients, losses, accuracy, checkpoints, and signals to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _console, _processes
from vlm_tune.errors import TrainingError
from vlm_tune.training.planning.estimate import Device, this_device
from vlm_tune.training.proving.checks import GradientLiveness
from vlm_tune.training.running import checkpoints
from vlm_tune.training.running.foresight import Foresight
from vlm_tune.training.running.selection import Seen, Selection
from vlm_tune.training.running.signals import Ending
from vlm_tune.training.running.steps import Step, Steps
from vlm_tune.training.running.tape import Reading, Tape

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from vlm_tune.training.running.loop import Job
    from vlm_tune.training.running.sft import Loss

__all__ = ["WORTH_SAVING_S", "History", "Watch", "callback"]

WORTH_SAVING_S = 60.0
"""Seconds of training that a checkpoint at the end of an epoch must be worth: writing it takes one or two."""


@dataclass
class History:
    """What happened, by optimizer step.

    Attributes:
        losses: Training loss of every step, in nats per trained token.
        learning_rates: Learning rate of every step.
        validation: What the validation examples said, after every epoch.
        seconds: Time spent reading photos and training, interrupted runs before included.
        resumed_from: Step this run went on from; 0 for an unbroken run.
        foreseen_seconds: What `seconds` would become, told after a few steps; None in runs of a few steps.
    """

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    validation: list[Seen] = field(default_factory=list)
    seconds: float = 0.0
    resumed_from: int = 0
    foreseen_seconds: float | None = None

    def __post_init__(self) -> None:
        # From a checkpoint they come as JSON's lists.
        self.validation = [Seen(*one) for one in self.validation]


class Watch:
    """Looks at everything as it comes; `callback` connects it to the trainer.

    Attributes:
        ending: Whether this process was asked to end.
        stopping: Whether any process was, as all of them learn at the same step.
        saved: Steps that the newest checkpoint knows of.
        log: Takes what trackers are told of the validation examples; None without trackers.

    Args:
        job: The training run.
        steps: What each step takes.
        history: What happened before, in interrupted runs.
        started: When the run began, by `time.perf_counter`; photos have been read since.
        selection: Asks the validation examples; None without such.
    """

    def __init__(
        self,
        job: Job,
        steps: Steps,
        history: History,
        *,
        started: float,
        selection: Selection | None,
    ) -> None:
        self.job, self.steps, self.history = job, steps, history
        self.bar: _console.Bar | None = None
        self.ending = Ending()
        self.stopping = False
        self._halted = False
        self.saved = history.resumed_from
        self._started, self._saved_at = started, time.perf_counter()
        self._before = history.seconds
        self.log: Callable[[dict[str, float]], None] | None = None
        self._selection = selection
        self._liveness = GradientLiveness(job.resident.family)
        self._tape = Tape()
        self._foresight = Foresight(job.num_steps - history.resumed_from)

    def before_step(self, step: int) -> None:
        """Look at the gradients of the first steps."""
        self._liveness.check(self.job.wrapped.named_parameters(), last=step + 1 >= self.job.num_steps)

    def after_step(self, number: int, step: Step, loss: torch.Tensor, learning_rate: float) -> bool:
        """Take note of a step; returns whether training is to stop."""
        self._tape.put(number, step, loss, learning_rate, ending=self.ending.asked)
        # Several processes must learn of the end at the same step; one that is alone need not wait for its losses.
        ends = self.ending.asked and _processes.world_size() == 1
        self.catch_up(wait=ends or self.job.enough is not None)
        return self.stopping or (self.job.enough is not None and self.job.enough(self.history.losses))

    def catch_up(self, *, wait: bool = True) -> None:
        """Read the losses that are there, or all of them.

        Raises:
            TrainingError: A loss is not a finite number; the message names its examples.
        """
        for reading in self._tape.read(all_of_them=wait):
            self._note(reading)

    def validated(self, step: int) -> bool:
        """Look at the validation examples; returns whether training is to stop."""
        if self._selection is None:
            return False
        if self.bar is not None:
            self.bar.note("validating")
        seen = self._selection.look(step)
        if self.log is not None:
            loss = {} if seen.loss is None else {"eval_loss": seen.loss}
            self.log({"eval_accuracy": seen.accuracy, **loss})
        self._tell(seen)
        return self.exhausted

    def retell(self) -> None:
        """Tell of the epochs of interrupted runs again."""
        for seen in self.history.validation:
            self._tell(seen)

    def finish(self) -> None:
        """Read all losses, and look at the weights: a gradient can be broken where the loss was not.

        Raises:
            TrainingError: A loss or a weight is not a finite number.
        """
        import torch

        self.catch_up()
        weights = [parameter.detach() for parameter in self.job.wrapped.parameters() if parameter.requires_grad]
        if not torch.stack([weight.isfinite().all() for weight in weights]).all():
            raise TrainingError(
                f"the weights are not finite after step {len(self.history.losses)}, though its loss was: lower the "
                f"learning rate (now {self.job.config.learning_rate:g}), or train in bfloat16 instead of float16. "
                "They were not saved"
            )

    @contextmanager
    def saving(self, folder: Path, main: bool) -> Iterator[None]:
        """Around the writing of a checkpoint.

        Args:
            folder: The checkpoint.
            main: Whether this is the first process.

        Raises:
            TrainingError: A loss or a weight is not a finite number; nothing is written.
            StorageError: It cannot be written; nothing is left behind.
        """
        self.finish()
        self.saved = len(self.history.losses)
        self.history.seconds = self.seconds
        self._saved_at = time.perf_counter()
        with checkpoints.writing(folder, asdict(self.history), main=main):
            yield
            if self._selection is not None and main:
                self._selection.put_into(folder)

    def worth_saving(self, *, over: bool) -> bool:
        """Return whether the end of an epoch is to be saved, unless the configuration says how often.

        Args:
            over: Whether it is the last: the adapter itself is saved then.
        """
        if self.job.config.save_every is not None:
            return True
        return bool(_processes.same(not over and time.perf_counter() - self._saved_at >= WORTH_SAVING_S))

    def _foresee(self) -> None:
        foreseen = self._foresight.over(self.seconds)
        if foreseen is None:
            return
        self.history.foreseen_seconds = foreseen
        if foreseen >= WORTH_SAVING_S:
            _console.notice(_foretold(foreseen, this_device(self.job.resident.device.type)))

    @property
    def exhausted(self) -> bool:
        """Whether there is no patience left with the validation examples, or somebody has seen enough of them."""
        return self._halted or (self._selection is not None and self._selection.exhausted)

    @property
    def seconds(self) -> float:
        """Time spent reading photos and training, interrupted runs before included."""
        return self._before + time.perf_counter() - self._started

    def _tell(self, seen: Seen) -> None:
        validation = self.job.validation
        if validation is not None and validation.after_epoch is not None:
            # One process decides for all: they must end at the same step.
            go_on = _processes.by_one(validation.after_epoch)
            self._halted |= not go_on(seen.step / len(self.steps), seen.accuracy)

    def _note(self, reading: Reading) -> None:
        if not abs(reading.loss) < float("inf"):
            seen = dict.fromkeys(index for row in reading.step.everyone for index in row.examples)
            names = [self.job.batches.examples[index].id for index in seen]
            raise TrainingError(
                f"the loss is {reading.loss} at step {reading.number}, with {_some(names)}: lower the learning rate "
                f"(now {self.job.config.learning_rate:g}), or train in bfloat16 instead of float16. No "
                "checkpoint holds it; look at these photos if it happens again"
            )
        self.stopping |= reading.ending
        self.history.losses.append(reading.loss)
        self.history.learning_rates.append(reading.learning_rate)
        self._foresee()
        if self.bar is not None:
            self.bar.advance()
            self.bar.note(f"loss {reading.loss:.4f}")


def callback(watch: Watch, loss: Loss) -> TrainerCallback:
    """Return what tells a watch about a trainer.

    Args:
        watch: Is told.
        loss: Knows the step under way.
    """
    from transformers import TrainerCallback

    per_epoch = len(watch.steps)

    class Bridge(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.steps.epoch = int(state.global_step // per_epoch)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.before_step(state.global_step)

        def on_optimizer_step(self, args: Any, state: Any, control: Any, *, lr_scheduler: Any, **kwargs: Any) -> None:
            if loss.last is not None and watch.after_step(
                state.global_step + 1, *loss.last, max(lr_scheduler.get_last_lr())
            ):
                control.should_training_stop = True

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # Before the checkpoint of this step, which must know of it.
            if state.global_step % per_epoch == 0 or state.global_step == state.max_steps:
                watch.catch_up()
                if watch.validated(state.global_step):
                    control.should_training_stop = True
            if watch.stopping:
                control.should_save = True

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # When it is to stop, it is saved already.
            control.should_save &= not watch.stopping and watch.worth_saving(over=state.global_step >= state.max_steps)

    return Bridge()


def _foretold(seconds: float, device: Device) -> str:
    # Every process holds a GPU, and each of them is paid for.
    cost = device.cost(seconds * _processes.world_size())
    paid = f" and {cost} ({cost.basis})" if cost else ""
    return f"By three measured steps, training takes {seconds / 60:.1f} min{paid}."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
