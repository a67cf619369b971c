"""A trained adapter: a folder with its weights and where they come from; a predictor like any other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ValidationError

from vlm_tune import _files
from vlm_tune._console import Shown
from vlm_tune.errors import AdapterError, StorageError
from vlm_tune.records import Example, Prediction, Record
from vlm_tune.task import Task
from vlm_tune.training.attach import saved
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.log import TrainingLog
from vlm_tune.vlm import VLM
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.model import AskedBy
from vlm_tune.vlm.quantization import Quantization
from vlm_tune.vlm.sharding import load_fitting

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType


__all__ = ["CARD_FILE", "Adapter", "AdapterCard", "BaseIdentity"]

CARD_FILE = "vlm_tune.json"
"""Beside PEFT's own files: where the adapter comes from."""


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
    quantization: Quantization | None = None
    """How its weights were quantised while the adapter was trained."""

    @classmethod
    def of(cls, base: VLM) -> Self:
        """Return that of a model."""
        return cls(
            model=str(base.folder.resolve()) if base.folder else base.model,
            revision=base.revision,
            dtype=base.dtype,
            source=base.source,
            quantization=base.quantization,
        )


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


class Adapter(Shown):
    """A LoRA adapter on disk and its base model; a `Predictor`.

    The base stays as it is: the adapter is put on for its answers and taken off behind them.

    Args:
        path: Folder with `adapter_config.json`, `adapter_model.safetensors` and `vlm_tune.json`.
        card: What `vlm_tune.json` says.
        base: The model it belongs to.
        probe: Photos that `merge` compares answers on when it is given no others.
    """

    def __init__(self, path: Path, card: AdapterCard, *, base: VLM, probe: Sequence[Example] = ()) -> None:
        self.probe = tuple(probe)
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
            AdapterError: The base is not where it was, or its weights are not those the adapter was trained on.
        """
        folder = Path(path)
        try:
            card = AdapterCard.model_validate(_files.read_json(folder / CARD_FILE))
        except ValidationError as error:
            raise StorageError(f"{folder / CARD_FILE} is not an adapter's card: {error}") from error
        if base is None and Path(card.base.model).is_absolute() and not Path(card.base.model).is_dir():
            raise AdapterError(
                f"the adapter in {folder} was trained on {card.base.model}, which is not there any more; "
                "if it moved, say where it is: vlm_tune.Adapter.load(path, base=vlm_tune.VLM(folder))"
            )
        base = base or VLM(
            card.base.model,
            revision=card.base.revision,
            dtype=card.base.dtype,
            quantization=card.base.quantization,
        )
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

    @property
    def asked_by(self) -> AskedBy:
        """As `VLM.asked_by`."""
        return self.base.asked_by

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in no particular order, as `VLM.predict` does.

        Until the last one is taken, or the iterator is closed, the base cannot be used for anything else.

        Raises:
            AdapterError: The adapter's layers are not those of the base.
            ModelError: The base cannot be loaded, or another adapter is on it.
        """
        resident = load_fitting(self.base)
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

        An adapter of a quantised base goes into the unquantised weights; the report says how far that takes the
        answers from what was trained. The model that is returned is not quantised.

        Args:
            path: Folder for the merged model.
            probe: Photos whose answers must agree before and after; None takes a few of the training photos,
                if the adapter was trained in this process. An adapter that was loaded has none: give it some, or an
                empty list to prove the weights alone.

        Raises:
            MergeError: The merged model is not provably the adapter on its base, or there are no photos to prove it
                on; nothing is left at `path`.
        """
        from vlm_tune.training.merging.several import merge_adapters

        return merge_adapters([(self, 1.0)], path, probe=probe)

    def _rich(self) -> RenderableType:
        """Draw what was trained, on what and how it went."""
        from rich.table import Table

        log = self.training
        table = Table("adapter", self.name)
        table.add_row("base", f"{self.card.base.model} ({self.card.base.source})")
        table.add_row("folder", str(self.path))
        table.add_row("LoRA", f"r {self.config.r}, scale {self.config.scale:g}, {', '.join(self.config.regions)}")
        table.add_row("trained", f"{log.trained_parameters:,} parameters, {100 * log.trained_share:.2f} %")
        table.add_row("steps", f"{log.num_steps} ({log.num_examples} examples, {log.epochs:g} epochs)")
        table.add_row("loss", f"{log.losses[0]:.4f} at first, {log.final_loss:.4f} at last")
        table.add_row("trained tokens", log.audit.headline)
        if log.kept is not None:
            table.add_row("validation", f"accuracy {log.kept.accuracy}, after step {log.kept_step}")
        table.add_row("moved", ", ".join(f"{one.region} {100 * one.mean:.2g} %" for one in log.movement))
        foreseen = f" ({log.foreseen_seconds:.1f} s foreseen)" if log.foreseen_seconds else ""
        table.add_row("time", f"{log.seconds:.1f} s{foreseen}, {log.samples_per_second:.1f} examples/s")
        return table

    def frame(self) -> pd.DataFrame:
        """Return one row an optimizer step; see `TrainingLog.frame`."""
        return self.training.frame()

    def plot(self) -> Figure:
        """Draw the loss and, where validation examples were asked, their loss and accuracy."""
        return self.training.plot()
