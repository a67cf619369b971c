"""The recipe's stages on a model of true size with random weights: seconds and peak memory of each.

    python benchmarks/make_random_checkpoint.py qwen3-vl-8b /tmp/qwen3-vl-8b
    python benchmarks/true_size.py /tmp/qwen3-vl-8b --steps 20 --photos 20 --json result.json

The photos are drawn, the answers mean nothing, the stages are real. Twenty steps at the usual learning rate move
random bfloat16 weights hardly more than their rounding (57 % of the update survives); hence the larger one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlm_tune as vt
from vlm_tune import versions
from vlm_tune.errors import VlmTuneError


class Stages:
    """Times stages and the peak memory of each."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, object]]:
        """Time one stage; what the block puts in the yielded dictionary is kept beside the time."""
        row: dict[str, object] = {"stage": name}
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        try:
            yield row
        finally:
            if cuda:
                torch.cuda.synchronize()
                row["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            row["seconds"] = round(time.perf_counter() - started, 2)
            self.rows.append(row)
            print(json.dumps(row), flush=True)


def photos(folder: Path, *, per_class: int, size: tuple[int, int]) -> vt.Dataset:
    """Draw a class-balanced set at the wanted size and read it back."""
    taken: dict[str, int] = {}
    for photo in vt.demo.photos(0).photos:
        count = taken.get(photo.label, 0)
        if count == per_class:
            continue
        taken[photo.label] = count + 1
        target = folder / photo.label / Path(photo.id).name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(BytesIO(photo.jpeg)).resize(size, Image.Resampling.BICUBIC).save(target, quality=90)
    return vt.Dataset.from_folder(folder, task=vt.demo.task())


def main() -> None:
    """Run every stage and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of 4 photos")
    parser.add_argument("--photos", type=int, default=20, help="photos to evaluate")
    parser.add_argument("--size", type=int, nargs=2, default=(1000, 750), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of the fit; the gate has 2e-4")
    parser.add_argument("--run-dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    run_dir = arguments.run_dir or Path(tempfile.mkdtemp())
    stages = Stages()
    data = photos(run_dir / "photos", per_class=34, size=tuple(arguments.size))
    data = data.split(test=0.2, seed=0)
    train, test = data.train.subset(4 * arguments.steps, seed=0), data.test.subset(arguments.photos, seed=0)
    base = vt.VLM(arguments.checkpoint)
    gate_trainer = vt.LoRATrainer(base, vt.TrainConfig(epochs=1))
    trainer = vt.LoRATrainer(base, vt.TrainConfig(epochs=1, learning_rate=arguments.learning_rate))

    with stages.stage("plan"):
        plan = trainer.plan(train)
    plan.show()
    with stages.stage("load"):
        base.load()
    with stages.stage("evaluate base") as row:
        before = vt.Evaluator(test, run_dir=run_dir).run(base)
        row["photos"] = len(test)
    with stages.stage("overfit gate") as row:
        try:
            gate = gate_trainer.overfit(train)
            row |= {"passed": gate.passed}
        except VlmTuneError as error:
            row |= {"error": str(error)}
    with stages.stage("fit") as row:
        adapter = trainer.fit(train, run_dir=run_dir)
        row["samples"] = len(train)
    with stages.stage("merge with proof"):
        tuned = adapter.merge(run_dir / "merged")
    vt.MergeReport.load(run_dir / "merged").show()
    with stages.stage("load merged"):
        tuned.load()
    with stages.stage("evaluate tuned") as row:
        after = vt.Evaluator(test, run_dir=run_dir).run(tuned)
        row["photos"] = len(test)
    vt.Comparison(candidate=after, reference=before).show()

    table = Table("stage", "seconds", "peak GB", title=f"{arguments.checkpoint.name}, {versions.hardware()['gpu']}")
    for row in stages.rows:
        table.add_row(str(row["stage"]), str(row["seconds"]), str(row.get("peak_gb", "-")))
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"stages": stages.rows, **versions.packages()}, indent=2))


if __name__ == "__main__":
    main()
