"""Those who run the jobs of `train_speed.py`: TRL as its documentation shows it, TRL set with care, and vlm-tune.

All are watched from outside in the same way: a hook of torch notes when each optimizer step is done, on the device's
own clock, so nobody waits for the watching.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
import trl
from torch.optim.optimizer import register_optimizer_step_post_hook
from train_jobs import ALPHA, RANK, Job

import vlm_tune as vt

datasets.disable_progress_bars()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

CUDA = torch.cuda.is_available()
LEARNING_RATE = 2e-4


@dataclass
class Run:
    """What was seen of one training run.

    Attributes:
        steps: Seconds from the start of training, the model loaded, to the end of each optimizer step.
        seconds: Seconds until everything was done and saved.
        peak_gb: Most memory in tensors, in 10^9 bytes.
        reserved_gb: Most memory taken from the device.
        trained: Trained parameters.
        losses: Loss of each step, where it was asked for.
        more: Whatever else belongs into the row.
    """

    steps: list[float] = field(default_factory=list)
    seconds: float = 0.0
    peak_gb: float = 0.0
    reserved_gb: float = 0.0
    trained: int = 0
    losses: list[float] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def rate(self, samples: int, batch_size: int, *, skip: int = 4) -> float:
        """Return samples a second after the first steps, all samples of the run and those of a step given."""
        skip = min(skip, len(self.steps) // 2)
        return (samples - skip * batch_size) / (self.steps[-1] - self.steps[skip - 1])


@contextmanager
def watched() -> Iterator[Run]:
    """Time a block and its optimizer steps, and measure its memory; the numbers are there when the block has ended."""
    run, marks = Run(), []
    if CUDA:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started, origin = time.perf_counter(), _mark()
    hook = register_optimizer_step_post_hook(lambda *_: marks.append(_mark()))
    try:
        yield run
    finally:
        hook.remove()
        if CUDA:
            torch.cuda.synchronize()
            run.peak_gb = torch.cuda.max_memory_allocated() / 1e9
            run.reserved_gb = torch.cuda.max_memory_reserved() / 1e9
        run.seconds = time.perf_counter() - started
        run.steps = [origin.elapsed_time(mark) / 1e3 if CUDA else mark - origin for mark in marks]


def _mark() -> Any:
    if not CUDA:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def free() -> None:
    """Give all memory back that nothing refers to."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()


def train_trl(job: Job, *, careful: bool, batch_size: int, steps: int, curve: bool = False) -> Run:
    """Run some steps of TRL's SFTTrainer on a prompt-completion dataset with images.

    Args:
        job: What to train.
        careful: Without recomputing activations, and with workers that prepare the images; else as TRL's defaults are.
        batch_size: Photos a step.
        steps: How many steps.
        curve: Log every loss, at a constant learning rate.
    """
    prompt, end = job.texts
    # What a chat template would make of them, so that all train on the same tokens; it spares TRL that work.
    rows = [
        {"images": [{"bytes": one.image, "path": None}], "prompt": prompt, "completion": one.label + end}
        for one in job.data.examples
    ]
    data = datasets.Dataset.from_list(rows).cast_column("images", datasets.List(datasets.Image()))
    started = time.perf_counter()
    dtype = torch.bfloat16 if CUDA else torch.float32
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        job.checkpoint, dtype=dtype, device_map="cuda" if CUDA else "cpu"
    )
    load_s = time.perf_counter() - started
    settings: dict[str, Any] = {}
    if careful:
        settings = {"gradient_checkpointing": False, "dataloader_num_workers": max(1, (os.cpu_count() or 1) - 2)}
    if curve:
        settings |= {"logging_steps": 1, "lr_scheduler_type": "constant"}
    with tempfile.TemporaryDirectory() as scratch:
        arguments = trl.SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            learning_rate=LEARNING_RATE,
            bf16=CUDA,
            use_cpu=not CUDA,
            seed=0,
            max_length=None,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **settings,
        )
        adapters = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=job.targets, task_type="CAUSAL_LM")
        with watched() as run:
            trainer = trl.SFTTrainer(
                model=model, args=arguments, train_dataset=data, processing_class=job.processor, peft_config=adapters
            )
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
    run.trained = trainer.model.get_nb_trainable_parameters()[0]
    run.losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] if curve else []
    run.more = {
        "load_s": load_s,
        "recomputes": any(getattr(module, "gradient_checkpointing", False) for module in model.modules()),
    }
    del trainer, model
    free()
    return run


def train_vlm_tune(job: Job, config: vt.TrainConfig, *, plan: bool = False, shared: bool = False) -> Run:
    """Run a whole job through the public interface, from encoded photos to the adapter on disk.

    Args:
        job: What to train; the whole of `job.data`, all epochs.
        config: How, the regions included.
        plan: Also time the plan that a careful user looks at first.
        shared: Use the photos that the run before has left; otherwise they are read anew.
    """
    base = vt.VLM(job.checkpoint)
    more: dict[str, Any] = {}
    started = time.perf_counter()
    resident = base.load()
    if not shared:
        resident.kept.clear()
    more["load_s"] = time.perf_counter() - started
    trainer = vt.LoRATrainer(base, config)
    if plan:
        started = time.perf_counter()
        trainer.plan(job.data)
        more["plan_s"] = time.perf_counter() - started
    free()
    with tempfile.TemporaryDirectory() as folder, watched() as run:
        log = trainer.fit(job.data, run_dir=Path(folder)).training
    run.trained, run.losses, run.more = log.trained_parameters, list(log.losses), more
    return run


def unload(checkpoint: Path) -> None:
    """Free the weights that vlm-tune keeps in memory."""
    vt.VLM(checkpoint).unload()
    free()
