"""Predicted against measured peak memory of `LoRATrainer.fit`, over models, paths, batches and checkpointing.

Each setting trains three optimizer steps on the photos of `train_jobs.py`; what the plan said before is compared with
`torch.cuda.max_memory_allocated()` after. Settings without checkpointing come first: on the stock path, hooks that
checkpointing leaves in the model would make a frozen vision tower keep its activations as well.

    python benchmarks/memory_plan.py --checkpoints /tmp/checkpoints --json memory_plan.json
    python benchmarks/memory_plan.py --tiny
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import make_random_checkpoint
import torch
import train_jobs

import vlm_tune as vt
from vlm_tune import _console

STEPS = 3
Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One training run: the model, the form of `train_jobs.FORMS`, and what the configuration says."""

    model: str
    form: str
    batch: int
    checkpointing: bool | None = False
    fast: bool = True
    kinds: tuple[Any, ...] = ("attention",)
    nf4: bool = False
    limit_gib: float | None = None

    @property
    def name(self) -> str:
        """What the table calls it."""
        kept = {None: "as it fits", True: "all recomputed", False: "nothing recomputed"}[self.checkpointing]
        words = [self.model, f"form {self.form}", f"batch {self.batch}", "fused" if self.fast else "stock", kept]
        words += ["all kinds"] if len(self.kinds) > 1 else []
        words += ["4-bit base"] if self.nf4 else []
        words += [f"at most {self.limit_gib:g} GiB"] if self.limit_gib else []
        return ", ".join(words)


QWEN, LFM = "qwen3-vl-8b", "lfm2-vl-3b"
SETTINGS = (
    Setting(QWEN, "A", 4),
    Setting(QWEN, "A", 8),
    Setting(QWEN, "B", 4),
    Setting(QWEN, "B", 8),
    Setting(QWEN, "A", 8, checkpointing=True),
    Setting(QWEN, "B", 8, checkpointing=True),
    Setting(QWEN, "A", 4, checkpointing=None, limit_gib=21),
    Setting(QWEN, "B", 4, checkpointing=None, limit_gib=21),
    Setting(QWEN, "A", 4, fast=False),
    Setting(QWEN, "B", 4, fast=False),
    Setting(QWEN, "A", 4, fast=False, checkpointing=True),
    Setting(QWEN, "B", 4, fast=False, checkpointing=True),
    Setting(LFM, "A", 64),
    Setting(LFM, "A", 64, kinds=("attention", "mlp", "conv")),
    Setting(LFM, "A", 32, fast=False),
    Setting(LFM, "A", 32, fast=False, checkpointing=True),
    Setting(QWEN, "A", 4, fast=False, checkpointing=True, nf4=True),
)


def main() -> None:
    """Measure the settings and print the table."""
    arguments = parse()
    folder = arguments.checkpoints or Path(tempfile.mkdtemp(prefix="checkpoints-"))
    settings = [one for one in SETTINGS if one.model in arguments.models and (one.nf4 <= arguments.nf4)]
    rows: list[Row] = []
    base: vt.VLM | None = None
    for setting in settings:
        checkpoint = written(setting.model, folder, tiny=arguments.tiny)
        if base is None or base.folder != checkpoint or bool(base.quantization) != setting.nf4:
            del base
            clear()
            base = vt.VLM(checkpoint, quantization="nf4" if setting.nf4 else None)
        rows.append(measured(setting, base, checkpoint, tiny=arguments.tiny))
        print(json.dumps(rows[-1]), flush=True)
    print(markdown(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measured(setting: Setting, base: vt.VLM, checkpoint: Path, *, tiny: bool) -> Row:
    """Return one row: what the plan says, and the peak of training where there is a GPU."""
    job = headline(checkpoint, setting, tiny=tiny)
    batch = 2 if tiny else setting.batch
    limited = setting.checkpointing is None
    config = vt.TrainConfig(
        regions=job.regions,
        kinds=setting.kinds,
        batch_size=batch,
        micro_batch_size=None if limited else batch,
        gradient_checkpointing=setting.checkpointing,
        fast=setting.fast,
        epochs=1,
    )
    gpu = torch.cuda.is_available()
    if gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        share = min(1.0, setting.limit_gib * 2**30 / total) if setting.limit_gib else 1.0
        torch.cuda.set_per_process_memory_fraction(share)
    base.load()
    clear()
    trainer = vt.LoRATrainer(base, config)
    guess = trainer.plan(job.data).estimates
    row: Row = {
        "setting": setting.name,
        "micro_batch": guess.layout.micro_batch_size,
        "checkpointed": guess.layout.checkpointed,
        "predicted_gb": guess.memory_gb - guess.overhead_gb,
        "needed_gb": guess.memory_gb,
    }
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as run_dir, _console.quiet():
        try:
            adapter = trainer.fit(job.data, run_dir=run_dir)
            row["train_s"] = adapter.training.seconds
        except (vt.VlmTuneError, torch.OutOfMemoryError) as error:
            row["error"] = str(error).splitlines()[0]
    if gpu and "error" not in row:
        row["measured_gb"] = torch.cuda.max_memory_allocated() / 1e9
        row["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
        row["ratio"] = row["predicted_gb"] / row["measured_gb"]
    return row


def headline(checkpoint: Path, setting: Setting, *, tiny: bool) -> train_jobs.Job:
    """Return the job of a setting with as many photos as three steps take."""
    images = STEPS * (2 if tiny else setting.batch)
    if setting.model == LFM:
        return replace(train_jobs.cifar(checkpoint, images=images, classes=20, tiny=tiny), form=setting.form)
    return train_jobs.headline(checkpoint, form=setting.form, tiny=tiny).first(images)


def written(model: str, folder: Path, *, tiny: bool) -> Path:
    """Return the folder of a model, written where it is missing."""
    path = folder / (f"{model}-tiny" if tiny else model)
    if not (path / "config.json").exists():
        make_random_checkpoint.write(model, path, tiny=tiny)
    return path


def clear() -> None:
    """Give unused memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def markdown(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = "| setting | passes of | recomputed | predicted GB | measured GB | ratio |"
    return "\n".join([head, "|---|---:|---:|---:|---:|---:|", *map(line, rows)])


def line(row: Row) -> str:
    """Return one row of the table."""
    share = f"{row['checkpointed']:.0%}"
    cells = [row["setting"], f"{row['micro_batch']}", share, f"{row['predicted_gb']:.3g}"]
    if "ratio" in row:
        cells += [f"{row['measured_gb']:.3g}", f"{row['ratio']:.3f}"]
    else:
        cells += [row.get("error", "no GPU")[:60], ""]
    return f"| {' | '.join(cells)} |"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--models", nargs="+", choices=(QWEN, LFM), default=[QWEN, LFM])
    parser.add_argument("--nf4", action="store_true", help="the setting with a 4-bit base too; needs bitsandbytes")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size; without a GPU, predictions only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
