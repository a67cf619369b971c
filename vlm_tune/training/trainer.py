"""`LoRATrainer`: plan, prove on ten examples, train."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlm_tune import _console, _files
from vlm_tune.errors import StorageError, TrainingError
from vlm_tune.families import family_of, linear_names
from vlm_tune.training.adapter import CARD_FILE, Adapter, AdapterCard, BaseIdentity, TrainingLog
from vlm_tune.training.attach import fresh
from vlm_tune.training.batches import Batches
from vlm_tune.training.checks import TokenAudit, audit_tokens
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.gate import balanced, choose, overfit
from vlm_tune.training.loop import History, Job
from vlm_tune.training.loop import train as run
from vlm_tune.training.overfit import OverfitReport
from vlm_tune.training.plan import AdapterPlan, make_plan
from vlm_tune.versions import packages
from vlm_tune.vlm import VLM

if TYPE_CHECKING:
    from peft import PeftModel

    from vlm_tune.data import Dataset
    from vlm_tune.vlm import Resident

__all__ = ["LoRATrainer"]

_PROBES = 16
"""Training photos that a merge compares answers on when it is given no others."""


class LoRATrainer:
    """Fine-tunes a vision-language model with LoRA adapters; the model itself is never changed.

    Args:
        base: The model.
        config: How to train it.

    Example:
        >>> trainer = LoRATrainer(VLM("runs/some-model"), TrainConfig(epochs=1))  # doctest: +SKIP
        >>> trainer.plan(data.train).show()  # doctest: +SKIP
        >>> trainer.overfit(data.train).raise_if_failed()  # doctest: +SKIP
        >>> adapter = trainer.fit(data.train, run_dir="runs/damage")  # doctest: +SKIP
    """

    def __init__(self, base: VLM, config: TrainConfig | None = None) -> None:
        self.base = base
        self.config = config or TrainConfig()

    def plan(self, train: Dataset, *, device: str | None = None) -> AdapterPlan:
        """Return what training would adapt, and its memory, time and dollars; no weights are read.

        Args:
            train: The training examples.
            device: A card such as `H200` to plan for; None takes the one at hand.

        Raises:
            ModelError: The architecture is not known, or the card is not.
            AdapterError: A region or kind is hit nowhere or incompletely; the message lists what exists.
        """
        return make_plan(self.base, self.config, train.examples, train.task, device=device)

    def overfit(self, train: Dataset, *, num_examples: int = 10, max_steps: int = 100) -> OverfitReport:
        """Learn a few examples by heart with a throw-away adapter, and check that it looks at the photos.

        The gate passes when the loss is about 0 through the scoring of evaluation, all answers are right, the
        answers move with the photos when those change places, and grey blanks bring the accuracy to chance.

        Args:
            train: The training examples; the classes are drawn as evenly as they allow.
            num_examples: How many of them; all, if there are fewer.
            max_steps: Most optimizer steps; training stops as soon as all are learnt.

        Raises:
            TrainingError: Fewer than two classes can be drawn, the loss is not finite, or memory ran out.
            LabelAuditError: The trained tokens are not exactly the answers.
            AdapterError: An adapter gets no gradient.
        """
        if max_steps < 1:
            raise TrainingError(f"max_steps must be at least 1, got {max_steps}")
        chosen = choose(train.examples, num_examples, seed=self.config.seed)
        self._check_parts()
        return overfit(self._load(), self.config, chosen, train.task, max_steps=max_steps)

    def fit(self, train: Dataset, *, validation: Dataset | None = None, run_dir: Path | str | None = None) -> Adapter:
        """Train an adapter and save it in `run_dir/adapter`.

        A run that was interrupted goes on from its newest checkpoint, with the same result as an unbroken
        one; a run that is finished, with the same base, configuration, task and photos, is not done again.

        Args:
            train: The training examples.
            validation: Held-out examples whose loss is logged after every epoch; nothing is chosen by it.
            run_dir: Folder for the adapter and checkpoints; `runs/<fingerprint of the inputs>` if None.

        Raises:
            TrainingError: The loss is not finite, memory ran out, or the splits ask different questions.
            LabelAuditError: The trained tokens are not exactly the answers.
            AdapterError: A region or kind is not there, or an adapter gets no gradient.
            StorageError: The adapter or a checkpoint cannot be written.
        """
        self._check_parts()
        if validation is not None and validation.task != train.task:
            raise TrainingError("training and validation examples have different tasks; give both the same one")
        inputs = self._inputs(train, validation)
        folder = Path(run_dir) if run_dir is not None else Path("runs") / inputs
        target, checkpoints = folder / "adapter", folder / "checkpoints"
        card = self._finished(target, inputs)
        if card is None:
            card = self._train(train, validation, inputs, folder)
            shutil.rmtree(checkpoints / inputs, ignore_errors=True)
            if checkpoints.is_dir() and not any(checkpoints.iterdir()):
                checkpoints.rmdir()
        probe = balanced(train.examples, _PROBES, seed=self.config.seed)
        return Adapter(target, card, base=self.base, probe=probe)

    def _train(self, train: Dataset, validation: Dataset | None, inputs: str, folder: Path) -> AdapterCard:
        config, resident = self.config, self._load()
        batches = Batches(
            [*train.examples, *(validation.examples if validation else ())],
            processor=resident.processor,
            task=train.task,
            dtype=resident.dtype,
        )
        audit = audit_tokens(batches, resident.model.config, batch_size=config.batch_size)
        targets = resident.family.target_modules(config.regions, config.kinds)
        with resident.adapted(fresh(config, targets)) as wrapped:
            job = Job(
                resident=resident,
                wrapped=wrapped,
                batches=batches,
                num_train=len(train),
                config=config,
                title="Training",
                checkpoints=folder / "checkpoints" / inputs,
            )
            history = run(job)
            log = _log(config, len(train), history, audit, wrapped)
            card = AdapterCard(
                name=f"{self.base.name}-lora",
                inputs=inputs,
                base=self._identity(),
                task=train.task,
                config=config,
                training=log,
                packages=packages(),
            )
            _save(wrapped, card, folder / "adapter")
        return card

    def _load(self) -> Resident:
        resident = self.base.load()
        names = linear_names(resident.model)
        resident.family.require(names, self.config.regions, self.config.kinds)
        return resident

    def _check_parts(self) -> None:
        family_of(self.base.config).parts(self.config.regions, self.config.kinds)

    def _identity(self) -> BaseIdentity:
        base = self.base
        model = str(base.folder.resolve()) if base.folder else base.model
        return BaseIdentity(model=model, revision=base.revision, dtype=base.dtype, source=base.source)

    def _inputs(self, train: Dataset, validation: Dataset | None) -> str:
        def rows(data: Dataset | None) -> list[tuple[str, str]]:
            return [(example.label, example.content_hash) for example in data] if data else []

        everything = [
            self.base.source,
            self.base.dtype,
            self.config.fingerprint,
            train.task.fingerprint,
            rows(train),
            rows(validation),
        ]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]

    def _finished(self, target: Path, inputs: str) -> AdapterCard | None:
        if not (target / CARD_FILE).exists():
            return None
        try:
            card = AdapterCard.model_validate(_files.read_json(target / CARD_FILE))
        except ValidationError as error:
            raise StorageError(f"{target} holds something else than an adapter; choose another run_dir") from error
        if card.inputs == inputs:
            return card
        _console.notice(f"{target} was trained on other inputs; it is replaced when this training is finished.")
        return None


def _log(
    config: TrainConfig, num_examples: int, history: History, audit: TokenAudit, wrapped: PeftModel
) -> TrainingLog:
    trained, total = wrapped.get_nb_trainable_parameters()
    return TrainingLog(
        losses=tuple(history.losses),
        learning_rates=tuple(history.learning_rates),
        validation_losses=tuple(history.validation),
        num_examples=num_examples,
        epochs=config.epochs,
        seconds=history.seconds,
        resumed_from=history.resumed_from,
        trained_parameters=trained,
        total_parameters=total - trained,
        trained_tokens=audit.trained_tokens,
        audited_tokens=audit.total_tokens,
    )


def _save(wrapped: PeftModel, card: AdapterCard, target: Path) -> None:
    with _files.atomic_directory(target) as folder:
        # Embeddings are never trained; looking whether they were would ask a server.
        wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        _files.write_text(folder / CARD_FILE, card.model_dump_json(indent=2) + "\n")
