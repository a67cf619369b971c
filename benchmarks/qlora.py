"""Memory and speed of training on 16-bit and on four-bit (NF4) base weights, and what they answer differently.

    python benchmarks/qlora.py /tmp/qwen3-vl-8b --out /tmp/qlora.json
    python benchmarks/qlora.py /tmp/tiny --images 6 --size 64x48 --batch 2 --device cpu     # does it run?

Each row trains the same photos through `LoRATrainer.fit` once to warm up and once on the clock. `weights` is what
the loaded model takes, `peak` the most that torch allocated, `reserved` the most that it held, all without the CUDA
context.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlm_tune as vt
from vlm_tune.versions import hardware, packages

CLASSES = ("crack", "dent", "scratch")
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "16 bit": (None, {}),
    "16 bit, stock forward": (None, {"fast": False, "gradient_checkpointing": False}),
    "nf4": ("nf4", {"gradient_checkpointing": False}),
    "nf4, checkpointing": ("nf4", {"gradient_checkpointing": True}),
    "nf4, checkpointing, one by one": ("nf4", {"gradient_checkpointing": True, "micro_batch_size": 1}),
}
"""What is compared: the base's quantisation, and settings besides the common ones."""
_GIB = 2**30


def photos(count: int, width: int, height: int) -> vt.Dataset:
    """Draw photos of coarse noise as JPEG, one class after the other."""
    task = vt.Task(prompt="What kind of damage does this photo show?", classes=CLASSES)
    examples = []
    for index in range(count):
        coarse = np.random.default_rng(index).integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        examples.append(vt.Example(id=str(index), image=buffer.getvalue(), label=CLASSES[index % len(CLASSES)]))
    return vt.Dataset(examples, task=task)


def measure(base: vt.VLM, config: vt.TrainConfig, data: vt.Dataset, warm_up: vt.Dataset) -> dict[str, Any]:
    """Load, warm up, train on the clock; returns seconds, samples a second and GiB."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    base.load()
    loaded = time.perf_counter() - started
    weights = torch.cuda.memory_allocated() if cuda else 0
    loading = torch.cuda.max_memory_allocated() if cuda else 0
    trainer = vt.LoRATrainer(base, config)
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(warm_up, run_dir=f"{folder}/warm-up")
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        log = trainer.fit(data, run_dir=f"{folder}/run").training
    return {
        "load_s": loaded,
        "load_peak_gib": loading / _GIB,
        "weights_gib": weights / _GIB,
        "peak_gib": torch.cuda.max_memory_allocated() / _GIB if cuda else 0.0,
        "reserved_gib": torch.cuda.max_memory_reserved() / _GIB if cuda else 0.0,
        "samples_per_s": log.samples_per_second,
        "s_per_step": log.seconds / log.num_steps,
        "steps": log.num_steps,
        "first_loss": log.losses[0],
        "last_loss": log.final_loss,
    }


def show(rows: dict[str, dict[str, Any]]) -> None:
    """Print one line a row."""
    names = {
        "load_s": "load s",
        "weights_gib": "weights GiB",
        "peak_gib": "peak GiB",
        "reserved_gib": "reserved GiB",
        "s_per_step": "s a step",
        "samples_per_s": "samples/s",
        "last_loss": "last loss",
    }
    table = Table("base", *names.values())
    for name, row in rows.items():
        cells = [f"{row[key]:.3g}" for key in names] if "error" not in row else [row["error"]]
        table.add_row(name, *cells)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", default="1000x750")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--regions", default="vision,projector,language")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()

    width, height = map(int, asked.size.split("x"))
    data, warm_up = photos(asked.images, width, height), photos(max(2 * asked.batch, 3), width, height)
    common: dict[str, Any] = dict(r=asked.rank, batch_size=asked.batch, epochs=asked.epochs)
    rows: dict[str, dict[str, Any]] = {}
    for name in asked.rows:
        quantization, settings = ROWS[name]
        base = vt.VLM(asked.model, device=asked.device, quantization=quantization)
        config = vt.TrainConfig(regions=tuple(asked.regions.split(",")), **common, **settings)
        try:
            rows[name] = measure(base, config, data, warm_up)
        except vt.errors.VlmTuneError as error:
            rows[name] = {"error": str(error)}
        base.unload()
        print(name, json.dumps(rows[name]), flush=True)
    show(rows)
    if asked.out:
        about = {"asked": {key: str(value) for key, value in vars(asked).items()}}
        asked.out.write_text(json.dumps({**about, "rows": rows, "on": hardware(), "packages": packages()}, indent=2))


if __name__ == "__main__":
    main()
