"""The job `answers` of `scaling.py`: how many photos a second an evaluation answers on several GPUs of one machine.

Two models answer: Qwen3-VL-8B about photos of 1000x750 in three classes, LFM2-VL-3B about images of CIFAR's size. The
clock runs around all of `Evaluator.run`, from encoded photos in memory to the table of answers, with the model loaded
and some other photos answered before. `asking` is the evaluation's own `wall_s`: without reading the photos, the
merging of the journals and the table, which the first process does alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train_jobs import DAMAGE, cifar, photos

import vlm_tune as vt
from vlm_tune import _processes, versions

__all__ = ["KINDS", "answers", "table"]

Row = dict[str, Any]
KINDS = {"photos": "qwen3-vl-8b", "cifar": "lfm2-vl-3b"}
_PHOTOS = 392
"""Four times the test split of the experiment, so that four GPUs have one each."""


def answers(kind: str, folder: Path, arguments: argparse.Namespace) -> Iterator[Row]:
    """Evaluate one model, and yield what it took for every batch size."""
    import torch

    data, others = drawn(kind, folder, arguments)
    for batch_size in [4] if arguments.tiny else arguments.answer_batch_sizes:
        base = vt.VLM(folder, batch_size=batch_size or None)
        started = time.perf_counter()
        base.load()
        vt.Evaluator(others).run(base)
        load_s = time.perf_counter() - started
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory() as own:
            evaluator = vt.Evaluator(data, run_dir=_processes.same(own))
            _processes.barrier()
            started = time.perf_counter()
            found = evaluator.run(base)
            seconds = time.perf_counter() - started
            _processes.barrier()
        peak_gb = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        yield {
            "job": "answers",
            "kind": kind,
            "batch": batch_size,
            "gpus": _processes.world_size(),
            "gpu": versions.hardware()["gpu"],
            "photos": len(data),
            "answered": found.outcomes["answered"],
            "first_s": load_s,
            "seconds": seconds,
            "asking_s": found.wall_s,
            "peak_gb": max(_processes.gathered(peak_gb)),
            "torch": torch.__version__,
        }


def drawn(kind: str, folder: Path, arguments: argparse.Namespace) -> tuple[vt.Dataset, vt.Dataset]:
    """Return the photos to answer, and some others of the same shapes to begin with."""
    more = 8 if arguments.tiny else 64 * _processes.world_size()
    if kind == "photos":
        count, size = (12, (120, 90)) if arguments.tiny else (_PHOTOS, (1000, 750))
        examples, task = photos(count + more, *size), DAMAGE
    else:
        count = 24 if arguments.tiny else arguments.images
        job = cifar(folder, images=count + more, classes=10 if arguments.tiny else 100, tiny=arguments.tiny)
        examples, task = job.data.examples, job.data.task
    return vt.Dataset(examples[:count], task=task), vt.Dataset(examples[count:], task=task)


def table(rows: list[Row]) -> str:
    """Return the rows as a table, with their efficiency where one GPU was measured."""
    alone = {(row["kind"], row["batch"]): row["seconds"] for row in rows if row["gpus"] == 1}
    lines = [
        "| answers | batch | GPUs | photos/s | efficiency | photos, whole run | asking | peak GB |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(rows, key=lambda row: (row["kind"], row["batch"], row["gpus"])):
        one = alone.get((row["kind"], row["batch"]))
        share = f"{100 * one / row['seconds'] / row['gpus']:.0f} %" if one else ""
        lines.append(
            f"| {row['kind']} | {row['batch']} | {row['gpus']} | {row['photos'] / row['seconds']:.1f} | {share} "
            f"| {row['photos']}, {row['seconds']:.2f} s | {row['asking_s']:.2f} s | {row['peak_gb']:.1f} |"
        )
    return "\n".join(lines)
