"""After every epoch: how right the model is on held-out examples, whether to go on, and which state was best."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vlm_tune import _console, _files, _processes
from vlm_tune.errors import TrainingError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.failures import storing
from vlm_tune.vlm.answering import Mode, answers
from vlm_tune.vlm.prompts import answer_ids

if TYPE_CHECKING:
    from peft import PeftModel

    from vlm_tune.vlm import Resident

__all__ = ["Seen", "Selection", "Validation", "best"]

_BEST = "best.safetensors"
"""The best state so far: in the run's folder, and in every checkpoint as it was then."""

_ENOUGH = 0.95
"""Share of the examples that must be answered, as in an evaluation."""


@dataclass(frozen=True)
class Validation:
    """Held-out examples, and how they are answered: as an evaluation of the adapter would.

    Attributes:
        examples: The labelled photos.
        mode: How the model answers.
        batch_size: Photos per batch; None chooses by device.
        after_epoch: Told of the epochs done and the accuracy; training ends when it returns False.
    """

    examples: Sequence[Example]
    mode: Mode = "score"
    batch_size: int | None = None
    after_epoch: Callable[[float, float], bool] | None = None


class Seen(NamedTuple):
    """What the held-out examples said at one step.

    Attributes:
        step: Optimizer steps taken.
        loss: Of the right answers, in nats per token; None where answers are generated and not scored.
        num_correct: Right answers; those of a multi-label task must be right as a whole.
        num_examples: Answers there are: a photo that cannot be read is missing.
    """

    step: int
    loss: float | None
    num_correct: int
    num_examples: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.num_correct / self.num_examples


def best(seen: Sequence[Seen]) -> int:
    """Return the place of the most accurate one; the earliest of several.

    Examples:
        >>> best([Seen(10, 0.9, 5, 8), Seen(20, 0.5, 7, 8), Seen(30, 0.4, 7, 8)])
        1
    """
    return max(range(len(seen)), key=lambda place: seen[place].accuracy)


class Selection:
    """Asks the model as it is, by the very functions that evaluate it, and keeps its best state on disk.

    Args:
        validation: What is asked.
        config: What to keep, and how much patience there is.
        resident: The loaded model.
        wrapped: The same with the adapters that are trained.
        task: The question.
        folder: Where the best state is kept.
        seen: What was seen in interrupted runs before; what comes is put behind it.
    """

    def __init__(
        self,
        validation: Validation,
        config: TrainConfig,
        *,
        resident: Resident,
        wrapped: PeftModel,
        task: Task,
        folder: Path,
        seen: list[Seen],
    ) -> None:
        self._validation, self._config, self._task = validation, config, task
        self._resident, self._wrapped = resident, wrapped
        self._file = folder / _BEST
        self._seen = seen
        self._told = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        patience = self._config.patience
        return patience is not None and bool(self._seen) and len(self._seen) - 1 - best(self._seen) >= patience

    def look(self, step: int) -> Seen:
        """Ask all examples, take note of the outcome, and keep the state if it is the best so far.

        Raises:
            TrainingError: So many cannot be answered that an evaluation would have no accuracy either.
            StorageError: The state cannot be written.
        """
        seen = self._ask(step)
        self._seen.append(seen)
        if self._config.keep == "best" and best(self._seen) == len(self._seen) - 1:
            _processes.by_one(self._keep)()
        return seen

    def put_into(self, checkpoint: Path) -> None:
        """Let a checkpoint have the best state of its time, for a run that goes on from it."""
        if self._file.exists():
            _link(self._file, checkpoint / _BEST)

    def take_from(self, checkpoint: Path | None) -> None:
        """Go back to the best state of a checkpoint's time; to none, without a checkpoint."""
        self._file.unlink(missing_ok=True)
        if checkpoint is not None and (checkpoint / _BEST).exists():
            _link(checkpoint / _BEST, self._file)

    def restore(self) -> None:
        """Put the best state into the adapters."""
        import torch
        from safetensors.torch import load_file

        tensors = load_file(self._file)
        with torch.no_grad():
            for name, parameter in self._wrapped.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(tensors[name])

    def _keep(self) -> None:
        from safetensors.torch import save_file

        state = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in self._wrapped.named_parameters()
            if parameter.requires_grad
        }
        with storing(self._file), _files.atomic_file(self._file) as temporary:
            save_file(state, temporary)

    def _ask(self, step: int) -> Seen:
        truth = {example.id: example.label for example in self._validation.examples}
        # Every process asks a part; a model that is spread over them is asked by all together.
        together = self._resident.sharded
        start, stride = (0, 1) if together else (_processes.rank(), _processes.world_size())
        mine = self._validation.examples[start::stride]
        likelihoods: dict[str, float] = {}
        predictions = list(
            answers(
                self._resident,
                mine,
                self._task,
                mode=self._validation.mode,
                batch_size=self._validation.batch_size,
                likelihoods=likelihoods,
            )
        )
        failed = [f"{one.example_id}: {one.error}" for one in predictions if one.outcome == "failed"]
        right = sum(one.label == truth[one.example_id] for one in predictions)
        tokens = sum(len(answer_ids(self._resident.processor, truth[name])) for name in likelihoods)
        part = right, failed, tokens, -sum(likelihoods.values())
        parts = [part] if together else _processes.gathered(part)
        failed = [words for part in parts for words in part[1]]
        num_tokens = sum(part[2] for part in parts)
        loss = sum(part[3] for part in parts) / num_tokens if num_tokens else None
        self._tell(failed)
        return Seen(step, loss, sum(part[0] for part in parts), len(truth) - len(failed))

    def _tell(self, failed: Sequence[str]) -> None:
        if len(failed) <= self._told:
            return
        self._told = len(failed)
        total = len(self._validation.examples)
        words = f"{len(failed)} of {total} validation examples cannot be answered; first {failed[0]}"
        if total - len(failed) < _ENOUGH * total:
            raise TrainingError(f"{words}. Replace these photos, or train without validation")
        _console.notice(f"{words}. They are left out.")


def _link(source: Path, target: Path) -> None:
    # A second name for the same bytes, where the disk knows such; the file itself is only ever replaced.
    try:
        os.link(source, target)
    except OSError:
        with _files.atomic_file(target) as temporary:
            shutil.copyfile(source, temporary)
