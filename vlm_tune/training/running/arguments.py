"""What a training run asks for, in the words of TRL's trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.errors import TrainingError
from vlm_tune.training.running.stock import Stock

if TYPE_CHECKING:
    from trl import SFTConfig

    from vlm_tune.training.running.loop import Job
    from vlm_tune.training.running.sft import Forward

__all__ = ["arguments_of"]


def arguments_of(job: Job, folder: Path, forward: Forward) -> SFTConfig:
    """Return the settings under which TRL's trainer does what a training run asks for.

    Args:
        job: The training run.
        folder: Where checkpoints go.
        forward: The way through the model.

    Raises:
        TrainingError: The model is on another GPU than the trainer would take.
    """
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
        # A step comes as one batch; `sft.Loss` divides it.
        gradient_accumulation_steps=1,
        max_steps=job.num_steps,
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
        logging_strategy="steps" if config.report_to else "no",
        logging_steps=10,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        # TensorBoard's comes from `tracked`, which knows where its files belong.
        report_to=[name for name in config.report_to if name != "tensorboard"] or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **{
            checkpointing: isinstance(forward, Stock) and forward.recomputes,
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
