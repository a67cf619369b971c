"""`LoRATrainer`: plan, prove on ten examples, train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune import _console, _processes
from vlm_tune.errors import TrainingError
from vlm_tune.families import family_in, linear_names
from vlm_tune.training.adapter import Adapter, AdapterCard, BaseIdentity
from vlm_tune.training.attach import fresh
from vlm_tune.training.augmenting.sheet import BatchSheet, sheet_of
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.examples import check_examples
from vlm_tune.training.gate import balanced, choose, overfit
from vlm_tune.training.keeping import finished, make_folder, retell, save_adapter, tidy
from vlm_tune.training.log import log_of
from vlm_tune.training.overfit import OverfitReport
from vlm_tune.training.planning.plan import AdapterPlan, make_plan, read_processor
from vlm_tune.training.proving.audit import TokenAudit
from vlm_tune.training.proving.checks import audit_tokens
from vlm_tune.training.proving.movement import movement
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.distributed import require_same
from vlm_tune.training.running.failures import explained
from vlm_tune.training.running.loop import Job
from vlm_tune.training.running.loop import train as run
from vlm_tune.training.running.selection import Validation
from vlm_tune.training.running.trackers import require_trackers
from vlm_tune.versions import packages
from vlm_tune.vlm import VLM
from vlm_tune.vlm.sharding import load_sharded, too_large

if TYPE_CHECKING:
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
        shard: Spread the frozen weights over the GPUs of all processes, for models that are too large for one; slower.
            None does so where it must be.

    Examples:
        >>> trainer = LoRATrainer(VLM("runs/some-model"), TrainConfig(epochs=1))  # doctest: +SKIP
        >>> trainer.plan(data.train).show()  # doctest: +SKIP
        >>> trainer.overfit(data.train).raise_if_failed()  # doctest: +SKIP
        >>> adapter = trainer.fit(data.train, run_dir="runs/damage")  # doctest: +SKIP
    """

    def __init__(self, base: VLM, config: TrainConfig | None = None, *, shard: bool | None = None) -> None:
        self.base = base
        self._shard = shard
        self.config = config or TrainConfig()

    def with_config(self, config: TrainConfig) -> LoRATrainer:
        """Return a trainer of the same model with another configuration."""
        return LoRATrainer(self.base, config, shard=self._shard)

    def check(
        self,
        train: Dataset,
        *,
        validation: Dataset | None = None,
        after_epoch: Callable[[float, float], bool] | None = None,
    ) -> None:
        """Refuse what cannot be trained, as `fit` does with the same arguments; no weights are read.

        Raises:
            TrainingError: The examples do not do, or a tracker is not installed; see `fit`.
            AdapterError: A region is not there, or the base takes no adapter.
        """
        self._check_parts()
        check_examples(train, validation, self.config, watched=after_epoch is not None)
        if validation is not None and self.base.answer != "generate":
            # Answers that cannot be listed raise here, and not after an epoch.
            _ = train.task.answers
        require_trackers(self.config.report_to)

    def plan(self, train: Dataset, *, device: str | None = None) -> AdapterPlan:
        """Return what training would adapt, and its memory, time and dollars; no weights are read.

        Args:
            train: The training examples.
            device: A card such as `H200` to plan for; None takes the one at hand.

        Raises:
            ModelError: The architecture is not known, or the card is not.
            AdapterError: A region or kind is hit nowhere or incompletely; the message lists what exists. Or the
                base is quantised in a way that takes no adapter.
        """
        self.base.check_takes_adapters()
        return make_plan(self.base, self.config, train.examples, train.task, device=device)

    def audit(self, train: Dataset) -> TokenAudit:
        """Show which tokens are trained and which are only read; `fit` makes the same audit. No weights are read.

        Args:
            train: The training examples; one batch, and one example of every label, are decoded.

        Raises:
            ModelError: The processor cannot be read.
            LabelAuditError: The trained tokens are not exactly the answers.

        Examples:
            >>> LoRATrainer(VLM("runs/some-model")).audit(data.train).show()  # doctest: +SKIP
        """
        import torch

        batches = Batches(train.examples, processor=read_processor(self.base), task=train.task, dtype=torch.float32)
        return audit_tokens(batches, self.base.config, batch_size=self.config.batch_size)

    def show_batch(self, train: Dataset, *, num_examples: int = 12, epoch: int = 0) -> BatchSheet:
        """Return the first photos of an epoch just as `fit` would see them, with their answers; no model is loaded.

        Args:
            train: The training examples.
            num_examples: How many photos; all, if there are fewer.
            epoch: Number of the pass, from 0: photos are changed anew in each.

        Raises:
            TrainingError: There would be none; or a class weight is for a label that no example has.
            ImageError: A photo cannot be read.

        Examples:
            >>> trainer = LoRATrainer(VLM("runs/some-model"), TrainConfig(augment=Augment(mixup=0.2)))  # doctest: +SKIP
            >>> trainer.show_batch(data.train).plot().savefig("batch.png")  # doctest: +SKIP
        """
        return sheet_of(train, self.config, num_examples=num_examples, epoch=epoch)

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
        return _processes.same(
            overfit(self._load(), self.config, chosen, train.task, max_steps=max_steps, skeleton=self.base.skeleton())
        )

    def fit(
        self,
        train: Dataset,
        *,
        validation: Dataset | None = None,
        run_dir: Path | str | None = None,
        after_epoch: Callable[[float, float], bool] | None = None,
    ) -> Adapter:
        """Train an adapter and save it in `run_dir/adapter`.

        A run that was interrupted goes on from its newest checkpoint, with the same result as an unbroken
        one; a run that is finished, with the same base, configuration, task and photos, is not done again.

        Args:
            train: The training examples.
            validation: Held-out examples that are answered after every epoch, as an evaluation would;
                `TrainConfig.keep` and `patience` go by their accuracy.
            run_dir: Folder for the adapter and checkpoints; `runs/<fingerprint of the inputs>` if None.
            after_epoch: Called with the epochs done and the accuracy on the validation examples after each of them;
                training ends when it returns False. It hears the epochs of an interrupted or finished run, too.

        Raises:
            TrainingError: The loss is not finite, or memory ran out; the examples hold those of another split, have
                one label only or do not answer the same question; `keep`, `patience` or `after_epoch` ask for
                validation examples and there are none, or only the test split; a class weight is for a label that
                no example has; a tracker is not installed.
            StoppedError: The process got a SIGTERM; a checkpoint is written, and the same call goes on.
            LabelAuditError: The trained tokens are not exactly the answers.
            AdapterError: A region or kind is not there, or an adapter gets no gradient.
            StorageError: The adapter or a checkpoint cannot be written.
        """
        self.check(train, validation=validation, after_epoch=after_epoch)
        inputs = self._inputs(train, validation, watched=after_epoch is not None)
        folder = Path(run_dir) if run_dir is not None else Path("runs") / inputs
        target, checkpoints = folder / "adapter", folder / "checkpoints"
        require_same(inputs)
        card = _processes.by_one(finished)(target, inputs)
        if card is None:
            _processes.by_one(make_folder)(checkpoints / inputs)
            asked = self._validation(validation, after_epoch)
            card = _processes.same(self._train(train, asked, inputs, folder))
            _processes.by_one(tidy)(checkpoints, inputs)
        elif after_epoch is not None:
            _processes.by_one(retell)(card, after_epoch)
        probe = balanced(train.examples, _PROBES, seed=self.config.seed)
        return Adapter(target, card, base=self.base, probe=probe)

    def _train(self, train: Dataset, validation: Validation | None, inputs: str, folder: Path) -> AdapterCard:
        config, resident = self.config, self._load()
        batches = Batches(
            train.examples,
            processor=resident.processor,
            task=train.task,
            dtype=resident.dtype,
            device=resident.device,
            kept=resident.kept,
        )
        audit = audit_tokens(batches, resident.model.config, batch_size=config.batch_size)
        targets = resident.family.target_modules(config.regions, config.kinds)
        # A rank may be too large for the memory by itself.
        with explained(config, str(resident.device)), resident.adapted(fresh(config, targets)) as wrapped:
            job = Job(
                resident=resident,
                wrapped=wrapped,
                batches=batches,
                config=config,
                title="Training",
                checkpoints=folder / "checkpoints" / inputs,
                validation=validation,
                logs=folder / "logs",
                skeleton=self.base.skeleton(),
            )
            history = run(job)
            moved = movement(wrapped, resident.family)
            log = log_of(config, len(train), history, audit, moved, wrapped)
            card = AdapterCard(
                name=f"{self.base.name}-lora",
                inputs=inputs,
                base=BaseIdentity.of(self.base),
                task=train.task,
                config=config,
                training=log,
                packages=packages(),
            )
            _processes.by_one(save_adapter)(wrapped, card, folder / "adapter")
        return card

    def _load(self) -> Resident:
        shard = too_large(self.base) if self._shard is None else self._shard and _processes.world_size() > 1
        if shard and (self.config.use_dora or self.config.modules_to_save):
            raise TrainingError("use_dora and modules_to_save need whole weights, and this model is spread over GPUs")
        resident = load_sharded(self.base) if shard else self.base.load()
        names, family = linear_names(resident.model), resident.family
        family.require(names, self.config.regions, self.config.kinds)
        if not family.registered:
            _console.notice(f"Architecture {family.name} is not in the registry; its layers were found by looking.")
        return resident

    def _validation(
        self, validation: Dataset | None, after_epoch: Callable[[float, float], bool] | None
    ) -> Validation | None:
        if validation is None:
            return None
        return Validation(
            validation.examples, mode=self.base.answer, batch_size=self.base.batch_size, after_epoch=after_epoch
        )

    def _check_parts(self) -> None:
        self.base.check_takes_adapters()
        family_in(self.base.skeleton()).parts(self.config.regions, self.config.kinds)

    def _inputs(self, train: Dataset, validation: Dataset | None, *, watched: bool) -> str:
        def rows(data: Dataset | None) -> list[tuple[str, str]]:
            return [(example.label, example.content_hash) for example in data] if data else []

        everything = [
            self.base.source,
            self.base.dtype,
            self.config.fingerprint,
            train.task.fingerprint,
            rows(train),
            rows(validation),
            self.base.answer if validation else None,
            # Whoever watches may have ended it early.
            *(["watched"] if watched else []),
        ]
        return hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16]
