"""A trained adapter: a folder with its weights and where they come from; a predictor like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from vlm_tune import _console, _files
from vlm_tune.errors import AdapterError, StorageError
from vlm_tune.records import Example, Prediction, Record
from vlm_tune.task import Task
from vlm_tune.training.attach import saved
from vlm_tune.training.config import TrainConfig
from vlm_tune.vlm import VLM
from vlm_tune.vlm.answering import answers

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


__all__ = ["CARD_FILE", "Adapter", "AdapterCard", "BaseIdentity", "TrainingLog"]

CARD_FILE = "vlm_tune.json"
"""Beside PEFT's own files: where the adapter comes from."""


class TrainingLog(Record):
    """How the training went."""

    losses: tuple[float, ...]
    """Loss of every optimizer step, in nats per trained token."""
    learning_rates: tuple[float, ...]
    """Learning rate of every optimizer step."""
    validation_losses: tuple[tuple[int, float], ...] = ()
    """Step and loss on the validation examples, after every epoch; empty without such examples."""
    num_examples: PositiveInt
    """Training examples."""
    epochs: float
    """Passes over them."""
    seconds: NonNegativeFloat
    """Time spent training, without loading the model; interrupted runs included."""
    resumed_from: NonNegativeInt = 0
    """Step at which the run went on after an interruption; 0 for an unbroken one."""
    trained_parameters: PositiveInt
    """Parameters of the adapter."""
    total_parameters: PositiveInt
    """Parameters of the base model."""
    trained_tokens: PositiveInt
    """Tokens that the loss saw, in the examples that were audited."""
    audited_tokens: PositiveInt
    """All tokens of those examples."""

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


class BaseIdentity(Record):
    """Which model an adapter belongs to."""

    model: str
    """Id or path, as it was given."""
    revision: str | None
    """Branch, tag or commit of an id."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    """Type the base was asked for."""
    source: str
    """Which weights it had: id and commit, or a digest of its folder."""


class AdapterCard(Record):
    """Everything about an adapter but its weights."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    name: str
    """How results call the adapter."""
    inputs: str
    """Fingerprint of base, configuration, task and data; the same inputs are not trained twice."""
    base: BaseIdentity
    """The model it belongs to."""
    task: Task
    """The question it was trained for."""
    config: TrainConfig
    """How it was trained."""
    training: TrainingLog
    """How the training went."""
    packages: dict[str, str]
    """Versions of the packages it was made with."""


class Adapter:
    """A LoRA adapter on disk and its base model; a `Predictor`.

    The base stays as it is: the adapter is put on for its answers and taken off behind them.

    Args:
        path: Folder with `adapter_config.json`, `adapter_model.safetensors` and `vlm_tune.json`.
        card: What `vlm_tune.json` says.
        base: The model it belongs to.
        probe: Photos that `merge` compares answers on when it is given no others.
    """

    def __init__(self, path: Path, card: AdapterCard, *, base: VLM, probe: Sequence[Example] = ()) -> None:
        self._probe = tuple(probe)
        self.path = path
        self.card = card
        self.base = base
        self.name = card.name
        self.task = card.task
        self.config = card.config
        self.training = card.training

    def __repr__(self) -> str:
        return f"Adapter({str(self.path)!r}, base={self.base!r})"

    @classmethod
    def load(cls, path: Path | str, *, base: VLM | None = None) -> Adapter:
        """Open an adapter's folder; no weights are read.

        Args:
            path: The folder.
            base: The model to use; None takes the one the adapter was trained on.

        Raises:
            StorageError: The folder does not hold an adapter of this library.
            AdapterError: The base's weights are not those it was trained on.
        """
        folder = Path(path)
        try:
            card = AdapterCard.model_validate(_files.read_json(folder / CARD_FILE))
        except ValidationError as error:
            raise StorageError(f"{folder / CARD_FILE} is not an adapter's card: {error}") from error
        base = base or VLM(card.base.model, revision=card.base.revision, dtype=card.base.dtype)
        if base.source != card.base.source:
            raise AdapterError(
                f"the adapter in {folder} was trained on {card.base.model} ({card.base.source}), not on "
                f"{base.model} ({base.source}); an adapter only means something on its own base"
            )
        return cls(folder, card, base=base)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the adapter's weights and the base's fingerprint."""
        weights = _files.sha256(self.path / "adapter_model.safetensors")
        what = f"{self.base.fingerprint} {weights} {self.config.scale}"
        return hashlib.sha256(what.encode()).hexdigest()[:16]

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in no particular order, as `VLM.predict` does.

        Until the last one is taken, or the iterator is closed, the base cannot be used for anything else.

        Raises:
            AdapterError: The adapter's layers are not those of the base.
            ModelError: The base cannot be loaded, or another adapter is on it.
        """
        resident = self.base.load()
        with resident.adapted(saved(self.path)):
            yield from answers(
                resident,
                examples,
                task,
                mode=self.base.answer,
                batch_size=self.base.batch_size,
                model_version=f"{self.base.source}+{self.fingerprint}",
            )

    def merge(self, path: Path | str, *, probe: Sequence[Example] | None = None) -> VLM:
        """Write base and adapter as one model, prove that it is their sum, and return it.

        Args:
            path: Folder for the merged model.
            probe: Photos whose answers must agree before and after; None takes a few of the training photos,
                if the adapter was trained in this process.

        Raises:
            MergeError: The merged model is not provably the adapter on its base; nothing is left at `path`.
        """
        from vlm_tune.training.merge import merge

        merge(self, path, probe=self._probe if probe is None else probe)
        base = self.base
        return VLM(
            path,
            dtype=base.dtype,
            device=base.device,
            answer=base.answer,
            batch_size=base.batch_size,
            name=f"{base.name}-tuned",
        )

    def show(self) -> None:
        """Print what was trained, on what and how it went."""
        from rich.table import Table

        log = self.training
        table = Table("adapter", self.name)
        table.add_row("base", f"{self.card.base.model} ({self.card.base.source})")
        table.add_row("folder", str(self.path))
        table.add_row("LoRA", f"r {self.config.r}, scale {self.config.scale:g}, {', '.join(self.config.regions)}")
        table.add_row("trained", f"{log.trained_parameters:,} parameters, {100 * log.trained_share:.2f} %")
        table.add_row("steps", f"{log.num_steps} ({log.num_examples} examples, {log.epochs:g} epochs)")
        table.add_row("loss", f"{log.losses[0]:.4f} at first, {log.final_loss:.4f} at last")
        table.add_row("time", f"{log.seconds:.1f} s, {log.samples_per_second:.1f} examples/s")
        _console.show(table, html=_console.to_html(table))

    def frame(self) -> pd.DataFrame:
        """Return one row an optimizer step: step, loss, learning rate."""
        import pandas as pd

        log = self.training
        steps = range(1, log.num_steps + 1)
        return pd.DataFrame({"step": steps, "loss": log.losses, "learning_rate": log.learning_rates})

    def plot(self) -> Figure:
        """Draw the loss curve."""
        from vlm_tune import plots

        log = self.training
        validation: Any = tuple(zip(*log.validation_losses, strict=True)) or None
        return plots.loss_curve(range(1, log.num_steps + 1), log.losses, validation=validation)
