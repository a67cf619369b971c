"""How much faster training and answering are on several GPUs of one machine: the same job, the same optimizer batch.

    for n in 1 2 4; do
        torchrun --standalone --nproc-per-node $n benchmarks/scaling.py --checkpoints /tmp/models --json scaling-$n.json
    done
    python benchmarks/scaling.py --table scaling-1.json scaling-2.json scaling-4.json
    torchrun --standalone --nproc-per-node 4 benchmarks/scaling.py --checkpoints /tmp/models --jobs large
    torchrun --standalone --nproc-per-node 4 benchmarks/scaling.py --checkpoints /tmp/models --jobs answers
    torchrun --standalone --nproc-per-node 2 benchmarks/scaling.py --tiny --json tiny-2.json

`headline` and `cifar` are the jobs of `train_speed.py`; of the 50,000 images of `cifar` a part is drawn, read and
trained on, three times over. `large` is a few steps of Qwen3-VL-32B with its layers spread over all GPUs. Rates are
those of the steps behind the first four; efficiency is a rate over that of one GPU times the number of GPUs. For
`answers` see `scaling_answers.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import scaling_answers
from train_jobs import Job, cifar, headline

import vlm_tune as vt
from vlm_tune import _processes, versions

Row = dict[str, Any]
MODELS = {"headline": "qwen3-vl-8b", "cifar": "lfm2-vl-3b", "large": "qwen3-vl-32b"}


def runs(arguments: argparse.Namespace, checkpoints: Path) -> Iterator[Row]:
    """Do every run and yield its row."""
    if "answers" in arguments.jobs:
        for kind, model in scaling_answers.KINDS.items():
            folder = checkpoints / model
            _processes.by_one(written)(model, folder, tiny=arguments.tiny)
            yield from scaling_answers.answers(kind, folder, arguments)
    for name in (name for name in arguments.jobs if name in MODELS):
        folder = checkpoints / MODELS[name]
        _processes.by_one(written)(MODELS[name], folder, tiny=arguments.tiny)
        batch_sizes = {"cifar": arguments.cifar_batch_sizes, "headline": arguments.batch_sizes, "large": [8]}[name]
        for form in arguments.forms if name == "headline" else ["A"]:
            for batch_size in batch_sizes:
                yield run(name, job_of(name, folder, form, arguments), batch_size, arguments)


def written(model: str, folder: Path, *, tiny: bool) -> None:
    """Write a model if it is not there."""
    import make_random_checkpoint

    if not (folder / "config.json").exists():
        make_random_checkpoint.write(model, folder, tiny=tiny)


def job_of(name: str, folder: Path, form: str, arguments: argparse.Namespace) -> Job:
    """Return a job with as many photos as it is to have here."""
    if name == "cifar":
        images = 32 if arguments.tiny else arguments.images
        return cifar(folder, images=images, classes=arguments.classes, tiny=arguments.tiny)
    job = headline(folder, form=form, tiny=arguments.tiny)
    return job.first(64) if name == "large" else job


def run(name: str, job: Job, batch_size: int, arguments: argparse.Namespace) -> Row:
    """Train, and return what it took."""
    import torch
    from train_contenders import free, watched

    large = name == "large"
    config = vt.TrainConfig(regions=job.regions, batch_size=batch_size, epochs=2 if large else job.epochs)
    base = vt.VLM(job.checkpoint)
    started = time.perf_counter()
    if not large:
        base.load()
    _processes.barrier()
    load_s = time.perf_counter() - started
    trainer = vt.LoRATrainer(base, config, shard=large)
    with tempfile.TemporaryDirectory() as own, watched() as seen:
        folder = Path(_processes.same(own))
        adapter = trainer.fit(job.data, run_dir=folder)
        _processes.barrier()
    log = adapter.training
    row = {
        "job": name,
        "form": job.form,
        "batch": batch_size,
        "gpus": _processes.world_size(),
        "gpu": versions.hardware()["gpu"],
        "photos": len(job.data),
        "load_s": load_s,
        "samples_per_s": seen.rate(round(len(job.data) * config.epochs), batch_size),
        "first_step_s": seen.steps[0],
        "seconds": seen.seconds,
        "peak_gb": max(_processes.gathered(seen.peak_gb)),
        "first_loss": log.losses[0],
        "last_loss": log.final_loss,
        "torch": torch.__version__,
    }
    if large:
        base.unload()
    free()
    return row


def table(rows: list[Row]) -> str:
    """Return the rows as tables, one for training and one for answers."""
    answers = [row for row in rows if row["job"] == "answers"]
    trained = [row for row in rows if row["job"] != "answers"]
    parts = [training(trained)] if trained else []
    return "\n\n".join([*parts, scaling_answers.table(answers)] if answers else parts)


def training(rows: list[Row]) -> str:
    """Return the rows as a table, with their efficiency where one GPU was measured."""
    alone = {what(row): row["samples_per_s"] for row in rows if row["gpus"] == 1}
    lines = [
        "| job | batch | GPUs | samples/s | efficiency | photos, whole run | first step | peak GB | first, last loss |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: (*map(str, what(row)), row["gpus"])):
        one = alone.get(what(row))
        share = f"{100 * row['samples_per_s'] / one / row['gpus']:.0f} %" if one else ""
        lines.append(
            f"| {row['job']} {row['form']} | {row['batch']} | {row['gpus']} | {row['samples_per_s']:.1f} | {share} "
            f"| {row['photos']}, {row['seconds']:.1f} s | {row['first_step_s']:.1f} s | {row['peak_gb']:.1f} "
            f"| {row['first_loss']:.4f}, {row['last_loss']:.4f} |"
        )
    return "\n".join(lines)


def what(row: Row) -> tuple[str, str, int]:
    """Return what makes rows comparable."""
    return row["job"], row["form"], row["batch"]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--jobs", nargs="+", choices=(*MODELS, "answers"), default=["headline", "cifar"])
    parser.add_argument("--forms", nargs="+", choices=("A", "B"), default=["A", "B"], help="of headline")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8], help="of headline")
    parser.add_argument("--cifar-batch-sizes", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--answer-batch-sizes", nargs="+", type=int, default=[0], help="of answers; 0: by device")
    parser.add_argument("--images", type=int, default=8192, help="of cifar, trained on or answered")
    parser.add_argument("--classes", type=int, default=20, help="of cifar; the prompt names them all")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSON", help="print the table of these files only")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size, for CPUs")
    arguments = parser.parse_args()
    if not (arguments.table or arguments.tiny or arguments.checkpoints):
        parser.error("--checkpoints is needed")
    if arguments.tiny:
        arguments.batch_sizes, arguments.cifar_batch_sizes = [3], [8]
    return arguments


def main() -> None:
    """Run what was asked for, and print one table."""
    arguments = parse()
    rows = [row for path in arguments.table or [] for row in json.loads(path.read_text())]
    if not arguments.table:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with tempfile.TemporaryDirectory() as own:
            for row in runs(arguments, arguments.checkpoints or Path(_processes.same(own))):
                rows.append(row)
                if _processes.is_main():
                    print(json.dumps(row), flush=True)
                    if arguments.json:
                        arguments.json.write_text(json.dumps(rows, indent=1))
            _processes.barrier()
    if _processes.is_main():
        print(table(rows))


if __name__ == "__main__":
    main()
