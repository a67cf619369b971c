"""The training loop: TRL's `SFTTrainer` on stock transformers, quiet, watched and resumable."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _console, _files
from vlm_tune.errors import TrainingError
from vlm_tune.training.attach import undisturbed
from vlm_tune.training.batches import Batches
from vlm_tune.training.checks import GradientLiveness
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.failures import explained

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from vlm_tune.vlm import Resident

__all__ = ["History", "Job", "train"]

_MARK = "vlm_tune.json"
"""Written last into a checkpoint: without it the checkpoint was cut off."""


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        resident: The loaded model.
        wrapped: The same with fresh adapters.
        batches: The examples, those for training first; the loss on the others is computed after every epoch.
        num_train: How many of them are for training.
        config: How.
        title: Words in front of the progress bar.
        max_steps: Stop after so many optimizer steps; None trains all epochs.
        enough: Called with all losses so far after every step; training stops when it returns True.
        checkpoints: Folder for checkpoints of this very run; None writes none.
    """

    resident: Resident
    wrapped: PeftModel
    batches: Batches
    num_train: int
    config: TrainConfig
    title: str
    max_steps: int | None = None
    enough: Callable[[Sequence[float]], bool] | None = None
    checkpoints: Path | None = None

    @property
    def num_steps(self) -> int:
        """Optimizer steps, unless `enough` ends it earlier."""
        return self.max_steps or self.config.num_steps(self.num_train)


@dataclass
class History:
    """What happened, by optimizer step.

    Attributes:
        losses: Training loss of every step, in nats per trained token.
        learning_rates: Learning rate of every step.
        validation: Step and validation loss, after every epoch.
        seconds: Time spent training, interrupted runs before included.
        resumed_from: Step this run went on from; 0 for an unbroken run.
    """

    losses: list[float] = field(default_factory=list)
    learning_rates: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    seconds: float = 0.0
    resumed_from: int = 0


def train(job: Job) -> History:
    """Train the adapters in place; goes on from the newest complete checkpoint in `job.checkpoints`.

    A run that was killed and went on ends with the same adapter as an unbroken one: the order of the examples
    depends on seed and epoch only, and optimizer, schedule and random states are in the checkpoint.

    Raises:
        TrainingError: The loss is not finite, or memory ran out; the message proposes settings that fit.
        AdapterError: An adapter gets no gradient.
        StorageError: A checkpoint cannot be written.
    """
    newest = _newest(job.checkpoints) if job.checkpoints else None
    with tempfile.TemporaryDirectory(prefix="vlm-tune-") as scratch, undisturbed(job.resident.model):
        watch = _Watch(job, newest)
        folder, device = job.checkpoints or Path(scratch), str(job.resident.device)
        with _console.progress(job.title, total=job.num_steps) as bar, explained(job.config, device, folder):
            watch.bar = bar
            bar.advance(watch.history.resumed_from)
            trainer = _trainer(job, folder, watch)
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        watch.history.seconds += time.perf_counter() - watch.started
        _read_log(trainer.state.log_history, watch.history)
        trainer.accelerator.free_memory()
        return watch.history


def _newest(folder: Path) -> Path | None:
    complete = []
    for path in sorted(folder.glob("checkpoint-*")):
        if (path / _MARK).exists():
            complete.append(path)
        else:
            # Killed in the middle of writing.
            shutil.rmtree(path, ignore_errors=True)
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


class _Watch:
    """Looks at gradients, losses and checkpoints as they come; `_callback` connects it to the trainer."""

    def __init__(self, job: Job, resumed: Path | None) -> None:
        self.job = job
        self.history = History()
        if resumed is not None:
            self.history.seconds = float(_files.read_json(resumed / _MARK)["seconds"])
            self.history.resumed_from = int(resumed.name.rpartition("-")[2])
        self.bar: _console.Bar | None = None
        self.started = time.perf_counter()
        self._liveness = GradientLiveness(job.resident.family)
        self._losses: list[float] = []

    def before_step(self, step: int) -> None:
        self._liveness.check(self.job.wrapped.named_parameters(), last=step + 1 >= self.job.num_steps)

    def logged(self, step: int, loss: float) -> bool:
        if not abs(loss) < float("inf"):
            raise TrainingError(
                f"the loss is {loss} at step {step}: lower the learning rate (now "
                f"{self.job.config.learning_rate:g}), or train in bfloat16 instead of float16"
            )
        self._losses.append(loss)
        if self.bar is not None:
            self.bar.advance()
            self.bar.note(f"loss {loss:.4f}")
        return self.job.enough is not None and self.job.enough(self._losses)

    def saved(self, folder: Path) -> None:
        seconds = self.history.seconds + time.perf_counter() - self.started
        _files.write_json(folder / _MARK, {"seconds": seconds})


def _trainer(job: Job, folder: Path, watch: _Watch) -> SFTTrainer:
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTTrainer

    class QuietTrainer(SFTTrainer):  # type: ignore[misc]
        """SFTTrainer without side effects: no ping to a server, no model card, no counting of parameters."""

        def _send_telemetry(self) -> None:
            pass

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            pass

        def floating_point_ops(self, inputs: Any) -> int:
            return 0

    def rows(start: int, end: int) -> Dataset:
        return Dataset.from_dict({"index": list(range(start, end))})

    total = len(job.batches)
    trainer = QuietTrainer(
        model=job.wrapped,
        args=_arguments(job, folder),
        data_collator=job.batches.collate,
        train_dataset=rows(0, job.num_train),
        eval_dataset=rows(job.num_train, total) if total > job.num_train else None,
        processing_class=job.batches.processor,
        callbacks=[_callback(watch)],
    )
    # It prints to stdout, and comes in whenever tqdm is off.
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(job: Job, folder: Path) -> SFTConfig:
    import torch
    from trl import SFTConfig

    config, resident = job.config, job.resident
    cpu = resident.device.type == "cpu"
    saving = "no" if job.checkpoints is None else "steps" if config.save_every else "epoch"
    # transformers 5.23 renamed it, and warns about the old name.
    renamed = "activation_checkpointing" in SFTConfig.__dataclass_fields__
    checkpointing = "activation_checkpointing" if renamed else "gradient_checkpointing"
    arguments = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        num_train_epochs=config.epochs,
        max_steps=job.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if config.lr_scheduler == "constant" else config.lr_scheduler,
        warmup_steps=round(config.warmup_ratio * job.num_steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
        use_cpu=cpu,
        bf16=resident.dtype == torch.bfloat16 and not cpu,
        fp16=resident.dtype == torch.float16 and not cpu,
        save_strategy=saving,
        save_steps=config.save_every or 1,
        # Two, so that one is complete while the other is written.
        save_total_limit=2,
        eval_strategy="epoch" if len(job.batches) > job.num_train else "no",
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        dataloader_num_workers=0 if cpu or job.batches.kept_in_memory else 4,
        dataloader_pin_memory=resident.device.type == "cuda",
        **{
            checkpointing: config.gradient_checkpointing,
            # With reentrant checkpointing no gradient reaches the vision blocks, without a word.
            f"{checkpointing}_kwargs": {"use_reentrant": False},
        },
    )
    if arguments.device.type == "cuda" and resident.device.index not in (None, arguments.device.index):
        raise TrainingError(
            f"training runs on the first visible card, and the model is on {resident.device}; choose "
            "it with CUDA_VISIBLE_DEVICES instead"
        )
    if arguments.n_gpu > 1:
        # Several cards are visible; the model is on one, and TRL refuses to spread it.
        arguments._n_gpu = 1
    return arguments


def _callback(watch: _Watch) -> TrainerCallback:
    from transformers import TrainerCallback

    class Bridge(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.before_step(state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" in logs and watch.logged(state.global_step, logs["loss"]):
                control.should_training_stop = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            watch.saved(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    return Bridge()


def _read_log(log: Sequence[dict[str, float]], history: History) -> None:
    for entry in log:
        if "loss" in entry:
            history.losses.append(entry["loss"])
            history.learning_rates.append(entry["learning_rate"])
        elif "eval_loss" in entry:
            history.validation.append((int(entry["step"]), entry["eval_loss"]))
