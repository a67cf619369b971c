"""The training loop: TRL's `SFTTrainer` around this library's batches and forward pass, watched and resumable."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _console, _processes
from vlm_tune.errors import StoppedError
from vlm_tune.training.attach import speaking, undisturbed
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.fitting import fit_to_memory
from vlm_tune.training.running import checkpoints
from vlm_tune.training.running.arguments import arguments_of
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.distributed import without_copies
from vlm_tune.training.running.failures import explained, storing
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.optimizer import parameter_groups
from vlm_tune.training.running.selection import Selection, Validation
from vlm_tune.training.running.sft import Forward, Loss, make_trainer
from vlm_tune.training.running.signals import listening
from vlm_tune.training.running.steps import Row, Steps, steps_of
from vlm_tune.training.running.stock import Stock
from vlm_tune.training.running.store import clear_gpu
from vlm_tune.training.running.trackers import tracked
from vlm_tune.training.running.watch import History, Watch, callback

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel
    from trl import SFTTrainer

    from vlm_tune.vlm import Resident

__all__ = ["History", "Job", "train"]


@dataclass(frozen=True)
class Job:
    """One training run.

    Attributes:
        resident: The loaded model.
        wrapped: The same with fresh adapters.
        batches: The training examples.
        config: How.
        title: Words in front of the progress bar.
        max_steps: Stop after so many optimizer steps; None trains all epochs.
        enough: Called with all losses so far after every step; training stops when it returns True.
        checkpoints: Folder for checkpoints of this very run; None writes none.
        skeleton: The bare model without weights, from which memory is planned; None plans nothing.
        validation: What is asked after every epoch; None asks nothing.
        logs: Folder for TensorBoard's files.
    """

    resident: Resident
    wrapped: PeftModel
    batches: Batches
    config: TrainConfig
    title: str
    max_steps: int | None = None
    enough: Callable[[Sequence[float]], bool] | None = None
    checkpoints: Path | None = None
    skeleton: PreTrainedModel | None = None
    validation: Validation | None = None
    logs: Path | None = None

    @property
    def num_steps(self) -> int:
        """Optimizer steps, unless `enough` ends it earlier."""
        return self.max_steps or self.config.num_steps(len(self.batches))


def train(job: Job) -> History:
    """Train the adapters in place; goes on from the newest whole checkpoint in `job.checkpoints`.

    A run that was killed and went on ends with the same adapter as an unbroken one: the order of the examples
    depends on seed and epoch only, and optimizer, schedule and random states are in the checkpoint.

    Raises:
        TrainingError: The loss is not finite, or memory ran out; the message proposes settings that fit.
        StoppedError: The process was asked to end; a checkpoint is written.
        AdapterError: An adapter gets no gradient.
        ImageError: A photo cannot be read.
        StorageError: A checkpoint cannot be written.
    """
    _processes.join()
    found = _processes.by_one(checkpoints.newest)(job.checkpoints) if job.checkpoints else None
    history = History(**found[1]) if found else History()
    history.resumed_from = len(history.losses)
    with (
        tempfile.TemporaryDirectory(prefix="vlm-tune-") as scratch,
        undisturbed(job.resident.model),
        _only_new_garbage(),
    ):
        folder, device = job.checkpoints or Path(scratch), str(job.resident.device)
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if job.checkpoints:
            _processes.by_one(checkpoints.name_others)(job.checkpoints)
        with explained(job.config, device):
            return _run(job, folder, history, found[0] if found else None)


def _run(job: Job, folder: Path, history: History, resume: Path | None) -> History:
    config, started, steps = job.config, time.perf_counter(), _steps(job)
    forward, micro_batch_size = _forward(job)
    steps.coming = forward.coming
    loss = Loss(
        forward,
        config,
        num_tokens=job.batches.num_tokens,
        micro_batch_size=min(_processes.gathered(micro_batch_size)),
        in_step=job.resident.sharded,
    )
    selection = _selection(job, folder, history, resume)
    watch = Watch(job, steps, history, started=started, selection=selection)
    watch.retell()
    trainer = make_trainer(
        without_copies(job.wrapped),
        arguments_of(job, folder, forward),
        processor=job.batches.processor,
        steps=steps,
        loss=loss,
        groups=lambda: parameter_groups(job.wrapped, job.resident.family, config),
        callback=callback(watch, loss),
        saving=watch.saving,
    )
    watch.log = trainer.log if config.report_to else None
    with (
        closing(forward),
        _console.progress(job.title, total=job.num_steps) as bar,
        _installed(forward, job.resident.model),
        tracked(trainer, config.report_to, job.logs),
    ):
        watch.bar = bar
        bar.advance(history.resumed_from)
        _train(trainer, job, watch, resume)
    if selection is not None and config.keep == "best":
        selection.restore()
    history.seconds = watch.seconds
    trainer.accelerator.free_memory()
    return history


def _steps(job: Job) -> Steps:
    """Return the steps of the training, as this process has a part in them."""
    labels = [example.label for example in job.batches.examples]
    rank, world_size = _processes.rank(), _processes.world_size()
    return steps_of(job.config, labels, rank=rank, world_size=world_size, even=job.resident.sharded)


def _train(trainer: SFTTrainer, job: Job, watch: Watch, resume: Path | None) -> None:
    """Train what is left to train."""
    if resume and (watch.history.resumed_from >= job.num_steps or watch.exhausted):
        # In an epoch that ends early transformers would train one step more.
        trainer._load_from_checkpoint(str(resume))
        return
    with listening() if job.checkpoints else nullcontext(watch.ending) as watch.ending:
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
        watch.finish()
        if job.checkpoints and any(_processes.gathered(watch.stopping or watch.ending.asked)):
            done = len(watch.history.losses)
            if watch.saved < done:
                # It was heard of only behind the last step.
                trainer._save_checkpoint(trainer.model, None)
            raise StoppedError(step=done, num_steps=job.num_steps, checkpoints=job.checkpoints)


def _selection(job: Job, folder: Path, history: History, resume: Path | None) -> Selection | None:
    if job.validation is None:
        return None
    selection = Selection(
        job.validation,
        job.config,
        resident=job.resident,
        wrapped=job.wrapped,
        task=job.batches.task,
        folder=folder,
        seen=history.validation,
    )
    _processes.by_one(selection.take_from)(resume)
    return selection


def _forward(job: Job) -> tuple[Forward, int]:
    """Return the fast way through the model if it agrees with the stock one, and the examples of one pass."""
    from vlm_tune.vlm.fused import fused
    from vlm_tune.vlm.fused.recompute import Recompute

    config, stock, recompute = job.config, Stock(job.resident, job.batches), Recompute()
    plain = not (config.lora_dropout or config.use_dora or config.modules_to_save)
    plain = plain and not job.resident.sharded
    way = fused(job.resident.model, recompute) if config.fast and plain else None
    if way is not None:
        layout, room = fit_to_memory(job, fused=True)
        recompute.share = layout.checkpointed
        fast = Fast(
            job.resident,
            job.batches,
            way,
            sees_once=set(config.regions) == {"language"},
            room=room,
            changed=config.changes_photos,
        )
        with ExitStack() as unless_taken:
            # Its photos lie in memory that others want: the stock way, or whoever goes on after a failure.
            unless_taken.callback(fast.close)
            fast.read(range(len(job.batches)))
            if _agree(job, fast, stock):
                unless_taken.pop_all()
                return fast, layout.micro_batch_size
        del fast
    clear_gpu(job.batches.kept)
    layout, _ = fit_to_memory(job, fused=False)
    stock.recomputes = layout.checkpointed > 0
    return stock, layout.micro_batch_size


def _agree(job: Job, fast: Fast, stock: Stock) -> bool:
    """Return whether both ways through the model say the same, in all processes: none takes another than the rest."""
    from vlm_tune.vlm.fused import AGREE

    with _installed(fast, job.resident.model), speaking(job.wrapped):
        difference = fast.difference(stock, job.wrapped, [Row(0, 1.0)])
    most = AGREE[str(job.resident.dtype).removeprefix("torch.")]
    # What is no number is too much, too.
    too_much = [one for one in _processes.gathered(difference) if not one <= most]
    if too_much:
        _console.notice(
            f"The fast forward pass differs from the stock one by {100 * too_much[0]:.2g} % on this model; using the "
            "stock one (slower). Please report it with the output of vlm_tune.show_versions()."
        )
    return not too_much


@contextmanager
def _only_new_garbage() -> Iterator[None]:
    """Let Python's garbage collector look at what the block makes only.

    Torch and transformers are a million objects, and the trainer collects twice: half a second each time.
    """
    alone = gc.get_freeze_count() == 0
    if alone:
        gc.freeze()
    try:
        yield
    finally:
        if alone:
            gc.unfreeze()


@contextmanager
def _installed(forward: Forward, model: Any) -> Iterator[None]:
    """Let the model's `forward` be the fast one for packed batches, and what it was for all others."""
    if not isinstance(forward, Fast):
        yield
        return
    had, before = "forward" in vars(model), model.forward

    @wraps(before)  # Generation looks at what it takes.
    def either(*args: Any, **kwargs: Any) -> Any:
        return forward.forward(**kwargs) if "packed" in kwargs else before(*args, **kwargs)

    model.forward = either
    try:
        yield
    finally:
        if had:
            model.forward = before
        else:
            del model.forward
