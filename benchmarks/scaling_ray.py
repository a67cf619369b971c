"""How many photos a second an evaluation answers on several GPUs through `RayBackend`, beside `torchrun`.

    python benchmarks/scaling_ray.py --checkpoints /tmp/models --gpus 1 2 4
    torchrun --standalone --nproc-per-node 4 benchmarks/scaling.py --checkpoints /tmp/models --jobs answers
    python benchmarks/scaling_ray.py --tiny --gpus 1 2

The same models and photos as the job `answers` of `scaling.py`, which has loaded its model before the clock runs.
Workers of Ray start and load for each call, so there are two figures: `photos/s` once every worker has sent its first
batch, to be held against that of `torchrun`, and the whole call. The cluster itself runs before the clock does.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import scaling_answers
from scaling import written

import vlm_tune as vt
from vlm_tune import versions
from vlm_tune.journal import Journal

Row = dict[str, Any]


def runs(arguments: argparse.Namespace, checkpoints: Path) -> Iterator[Row]:
    """Evaluate each model with every number of workers, and yield what it took."""
    for kind in arguments.kinds:
        model = scaling_answers.KINDS[kind]
        written(model, checkpoints / model, tiny=arguments.tiny)
        data, _ = scaling_answers.drawn(kind, checkpoints / model, arguments)
        # Named, because the caller looks at no GPU before the workers do.
        base = vt.VLM(checkpoints / model, dtype="float32" if arguments.tiny else "bfloat16")
        for workers in arguments.gpus:
            backend = vt.RayBackend(num_gpus=0 if arguments.tiny else 1, num_cpus=1, max_workers=workers)
            with tempfile.TemporaryDirectory() as own, backend:
                started = time.perf_counter()
                found = vt.Evaluator(data, run_dir=own).run(base, backend=backend)
                seconds = time.perf_counter() - started
                [path] = (Path(own) / "predictions").iterdir()
                rate = steady(path, workers)
            yield {
                "kind": kind,
                "workers": workers,
                "gpu": versions.hardware()["gpu"],
                "photos": len(data),
                "answered": found.outcomes["answered"],
                "accuracy": found.accuracy.value,
                "photos_per_s": rate,
                "seconds": seconds,
            }


def steady(path: Path, workers: int) -> float | None:
    """Return photos a second from when every worker had sent a batch; None where that was the end."""
    with Journal(path) as journal:
        arrivals = list(accumulate(entry.elapsed_s for entry in journal.entries()))
    # Answers of one batch arrive together.
    ends = [at for at, (one, two) in enumerate(pairwise(arrivals)) if two - one > 0.005]
    if len(ends) < workers:
        return None
    first = ends[workers - 1]
    return (len(arrivals) - 1 - first) / (arrivals[-1] - arrivals[first])


def table(rows: list[Row]) -> str:
    """Return the rows as a table, with their efficiency where one worker was measured."""
    alone = {row["kind"]: row["photos_per_s"] for row in rows if row["workers"] == 1}
    lines = ["| answers, Ray | GPUs | photos/s | efficiency | photos, whole call |", "|---|--:|--:|--:|--:|"]
    for row in rows:
        rate, one = row["photos_per_s"], alone.get(row["kind"])
        share = f"{100 * rate / one / row['workers']:.0f} %" if rate and one else ""
        shown = "" if rate is None else f"{rate:.1f}"
        whole = f"{row['photos']}, {row['seconds']:.1f} s"
        lines.append(f"| {row['kind']} | {row['workers']} | {shown} | {share} | {whole} |")
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--kinds", nargs="+", choices=scaling_answers.KINDS, default=list(scaling_answers.KINDS))
    parser.add_argument("--images", type=int, default=8192, help="of cifar")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size, for CPUs")
    arguments = parser.parse_args()
    if not (arguments.tiny or arguments.checkpoints):
        parser.error("--checkpoints is needed")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = []
    with tempfile.TemporaryDirectory() as own:
        for row in runs(arguments, arguments.checkpoints or Path(own)):
            rows.append(row)
            print(json.dumps(row), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    main()
