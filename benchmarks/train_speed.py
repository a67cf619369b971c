"""How fast training is: TRL with its defaults, TRL set with care, and vlm-tune, in one process on one machine.

    python benchmarks/train_speed.py --checkpoints /tmp/models --json speed.json
    python benchmarks/train_speed.py --checkpoints /tmp/models --jobs cifar --contenders ours --json speed.json
    python benchmarks/train_speed.py --table speed.json
    python benchmarks/train_speed.py --tiny

The models have true dimensions and random weights; they are written into the folder where they are missing. vlm-tune
does the whole job, from encoded photos to the adapter on disk, all checks on; the others do some steps of it, of which
the first four are left out, and the rest is projected. `headline` is 319 photos in three epochs, `cifar` 50,000 tiny
images in three, of which vlm-tune does a minute, and `curves` compares the losses with TRL's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train_jobs import FORMS, Job, cifar, headline
from train_table import PACKAGES, markdown, not_run

import vlm_tune as vt
from vlm_tune import versions

if TYPE_CHECKING:
    from train_contenders import Run

Row = dict[str, Any]
MODELS = {"headline": "qwen3-vl-8b", "cifar": "lfm2-vl-3b"}
JOBS = (*MODELS, "curves")
CONTENDERS = ("defaults", "careful", "ours")
CURVE_STEPS = 12


class Bench:
    """Runs what was asked for and keeps the rows."""

    def __init__(self, arguments: argparse.Namespace, checkpoints: Path) -> None:
        started = time.perf_counter()
        import train_contenders

        self.contenders = train_contenders
        self.arguments = arguments
        self.checkpoints = checkpoints
        self.machine = {
            "import_s": time.perf_counter() - started,
            "tflops": matmul_tflops(256 if arguments.tiny else 8192),
            "gpu": versions.hardware()["gpu"],
            "packages": {name: metadata.version(name) for name in PACKAGES},
            "limit_gib": arguments.memory_limit_gib,
            "context_gb": context_bytes() / 1e9,
        }

    def rows(self) -> Iterator[Row]:
        """Do every run and yield its row."""
        if self.arguments.memory_limit_gib:
            limit_memory(self.arguments.memory_limit_gib)
        runs = {"headline": self.headline, "cifar": self.cifar, "curves": self.curves}
        for name in self.arguments.jobs:
            for contender in self.arguments.contenders:
                yield from runs[name](contender)

    def checkpoint(self, job: str) -> Path:
        """Return the folder of a job's model, written if it is not there."""
        import make_random_checkpoint

        folder = self.checkpoints / MODELS[job]
        if not (folder / "config.json").exists():
            make_random_checkpoint.write(MODELS[job], folder, tiny=self.arguments.tiny)
        return folder

    def headline(self, contender: str) -> Iterator[Row]:
        """Train on 319 photos in every form and with every batch size."""
        for form in self.arguments.forms:
            job = headline(self.checkpoint("headline"), form=form, tiny=self.arguments.tiny)
            for batch_size in self.arguments.batch_sizes:
                if contender == "ours":
                    yield self.ours(job, batch_size)
                else:
                    yield self.peer(job, contender, batch_size)

    def cifar(self, contender: str) -> Iterator[Row]:
        """Train on tiny images; what vlm-tune does for all of them it does here for as many as take the time given."""
        tiny, classes = self.arguments.tiny, self.arguments.classes
        large = 8 if tiny else 64

        def make(images: int) -> Job:
            return cifar(self.checkpoint("cifar"), images=images, classes=classes, tiny=tiny)

        if contender != "ours":
            batch_size = large if contender == "careful" else 4
            yield self.peer(make(large * self.arguments.peer_steps), contender, batch_size)
            return
        yield self.row(make(12 * large), contender, large, lambda: self.minute(make, large))

    def minute(self, make: Callable[[int], Job], batch_size: int) -> tuple[Run, Row]:
        """Train on as many images as take the time asked for; a dozen steps before tell how many these are."""
        short = make(12 * batch_size)
        first = self.fit(short, self.config(short, batch_size, epochs=1))
        images = self.arguments.seconds * first.rate(12 * batch_size, batch_size, skip=6) / 3
        images = int(images) // batch_size * batch_size
        job = make(min(max(images, batch_size), 16 if self.arguments.tiny else 50_000))
        return self.whole(job, batch_size, start_s=first.steps[0])

    def curves(self, contender: str) -> Iterator[Row]:
        """Train on one batch again and again: the order of the photos then cannot matter."""
        do = {"ours": self.our_curve, "careful": self.trl_curve}.get(contender)
        if do is None:
            return
        tiny = self.arguments.tiny
        jobs = [headline(self.checkpoint("headline"), form=form, tiny=tiny) for form in self.arguments.forms]
        jobs.append(cifar(self.checkpoint("cifar"), images=8, classes=self.arguments.classes, tiny=tiny))
        for job in jobs:
            few = job.first(8)
            what = {"job": "curves", "photos": job.name, "form": job.form, "contender": contender}
            yield self.machine | what | self.attempt(lambda few=few: {"losses": do(few).losses})

    def our_curve(self, job: Job) -> Run:
        """Train with vlm-tune as `trl_curve` does."""
        plain = {"lr_scheduler": "constant", "warmup_ratio": 0.0, "save_every": CURVE_STEPS}
        return self.fit(job, self.config(job, len(job.data), epochs=CURVE_STEPS, **plain))

    def trl_curve(self, job: Job) -> Run:
        """Train with TRL on all photos in each step, at a constant learning rate."""
        return self.trl(job, "careful", len(job.data), CURVE_STEPS, curve=True)

    def ours(self, job: Job, batch_size: int) -> Row:
        """Do the whole job through `LoRATrainer.fit`."""
        return self.row(job, "ours", batch_size, lambda: self.whole(job, batch_size))

    def whole(self, job: Job, batch_size: int, *, start_s: float = 0.0) -> tuple[Run, Row]:
        """Train on all photos that were drawn; the time of the whole job is in proportion to them, beside its start."""
        run = self.fit(job, self.config(job, batch_size, epochs=job.epochs))
        share = len(job.data) / job.num_images
        whole = run.seconds if share == 1 else start_s + run.seconds / share
        rate = run.rate(len(job.data) * job.epochs, batch_size)
        return run, {"samples_per_s": rate, "whole_s": whole, "share_done": share, "start_s": start_s or run.steps[0]}

    def fit(self, job: Job, config: vt.TrainConfig) -> Run:
        """Train with vlm-tune."""
        return self.contenders.train_vlm_tune(job, config, plan=self.arguments.plan)

    def config(self, job: Job, batch_size: int, **changes: Any) -> vt.TrainConfig:
        """Return the configuration of a job: the library's defaults but for what every contender is given."""
        recompute = True if self.arguments.checkpointing else None
        return vt.TrainConfig(
            regions=job.regions,
            batch_size=batch_size,
            micro_batch_size=self.arguments.micro_batch,
            gradient_checkpointing=recompute,
            **changes,
        )

    def setting(self) -> str:
        """Return what vlm-tune was told beyond its defaults."""
        parts = [f"micro-batch {self.arguments.micro_batch}"] if self.arguments.micro_batch else []
        parts += ["all layers recomputed"] if self.arguments.checkpointing else []
        return ", ".join(parts)

    def peer(self, job: Job, contender: str, batch_size: int) -> Row:
        """Do some steps with TRL, and project the whole job: the first step as it was, the others at the later rate."""
        steps = self.arguments.peer_steps

        def run() -> tuple[Run, Row]:
            done = self.trl(job, contender, batch_size, steps)
            rate = done.rate(steps * batch_size, batch_size)
            start = done.steps[0]
            whole = start + (job.samples - batch_size) / rate
            share = steps * batch_size / job.samples
            return done, {"samples_per_s": rate, "whole_s": whole, "share_done": share, "start_s": start}

        return self.row(job, contender, batch_size, run)

    def trl(self, job: Job, contender: str, batch_size: int, steps: int, *, curve: bool = False) -> Run:
        """Train with TRL, alone on the machine."""
        for name in MODELS.values():
            if (self.checkpoints / name).exists():
                self.contenders.unload(self.checkpoints / name)
        careful = contender == "careful"
        return self.contenders.train_trl(job, careful=careful, batch_size=batch_size, steps=steps, curve=curve)

    def row(self, job: Job, contender: str, batch_size: int, do: Callable[[], tuple[Run, Row]]) -> Row:
        """Do one run and describe it; one that fails, for want of memory mostly, is a row too."""
        what = {"job": job.name, "form": job.form, "batch": batch_size, "contender": contender}
        if contender == "ours":
            what["setting"] = self.setting()
        what |= {"samples": job.samples, **job.sizes, "floor_s": job.work / 1e12 / self.machine["tflops"]}

        def described() -> Row:
            run, seen = do()
            seen |= {"peak_gb": run.peak_gb, "reserved_gb": run.reserved_gb, "trained": run.trained, **run.more}
            return seen | {"losses": run.losses, "steps": run.steps}

        return self.machine | what | self.attempt(described)

    def attempt(self, do: Callable[[], Row]) -> Row:
        """Return what was seen, or what went wrong: one failure must not cost the runs that follow."""
        try:
            return do()
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"[:500]}
        finally:
            self.contenders.free()


def matmul_tflops(size: int) -> float:
    """Return the rate of square matrix products, bfloat16 on a GPU, in 10^12 operations a second."""
    import torch

    cuda = torch.cuda.is_available()
    wait = torch.cuda.synchronize if cuda else lambda: None
    kind = {"device": "cuda", "dtype": torch.bfloat16} if cuda else {}
    left, right = (torch.randn(size, size, **kind) for _ in range(2))
    for repeats in (3, 20):
        wait()
        started = time.perf_counter()
        for _ in range(repeats):
            left @ right
        wait()
    return repeats * 2 * size**3 / (time.perf_counter() - started) / 1e12


def context_bytes() -> int:
    """Return the GPU memory that is taken before any tensor: CUDA's own, and other programs'."""
    import torch

    if not torch.cuda.is_available():
        return 0
    left, total = torch.cuda.mem_get_info()
    return total - left - torch.cuda.memory_reserved()


def limit_memory(gib: float) -> None:
    """Let this process have so much of the GPU's memory, what CUDA itself takes included."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction((gib * 2**30 - context_bytes()) / total)


def read(paths: list[Path]) -> list[Row]:
    """Return all rows of some files."""
    return [row for path in paths if path.exists() for row in json.loads(path.read_text())]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=list(FORMS), help="of headline and curves")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4, 8], help="of headline")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--peer-steps", type=int, default=14)
    parser.add_argument("--seconds", type=float, default=60.0, help="of cifar with vlm-tune")
    parser.add_argument("--classes", type=int, default=20, help="of cifar; the prompt names them all")
    parser.add_argument("--micro-batch", type=int, help="of vlm-tune; chosen by it otherwise")
    parser.add_argument("--checkpointing", action="store_true", help="vlm-tune recomputes in all layers")
    parser.add_argument("--plan", action="store_true", help="time vlm-tune's plan too")
    parser.add_argument("--memory-limit-gib", type=float, help="GPU memory for this process, CUDA's own included")
    parser.add_argument("--json", type=Path, help="file to add the rows to")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSON", help="print the table of these files only")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size, for a CPU")
    arguments = parser.parse_args()
    if not (arguments.table or arguments.tiny or arguments.checkpoints):
        parser.error("--checkpoints is needed")
    if arguments.tiny:
        arguments.peer_steps, arguments.seconds = 3, 1.0
    return arguments


def main() -> None:
    """Run what was asked for, and print one table."""
    arguments = parse()
    rows = read(arguments.table or [])
    if not arguments.table:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with tempfile.TemporaryDirectory() as folder:
            for row in Bench(arguments, arguments.checkpoints or Path(folder)).rows():
                rows.append(row)
                brief = {name: value for name, value in row.items() if name not in ("packages", "losses", "steps")}
                print(json.dumps(brief), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps([*read([arguments.json]), row], indent=1))
    print(markdown(rows))
    print(not_run(rows))


if __name__ == "__main__":
    main()
