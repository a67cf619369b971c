"""How fast closed questions are answered: transformers in several ways, vLLM, and vlm-tune, in one process.

    python benchmarks/inference_speed.py --checkpoints /tmp/models --json inference.json
    python benchmarks/inference_speed.py --checkpoints /tmp/models --jobs damage --contenders generate-16 ours
    python benchmarks/inference_speed.py --table inference.json
    python benchmarks/inference_speed.py --tiny

The models have true dimensions and random weights; they are written into the folder where they are missing. The clock
runs from encoded photos in memory to parsed answers, with the model loaded and a few other photos answered before.
vlm-tune does each job whole, a short one three times, of which the median counts; the others do a part once, and the
rest is projected.

`generate` writes as many tokens as the longest label has (random weights hardly ever end earlier), `stock` is one pass
that compares the labels' first tokens, `labels` one pass per label; with `-ahead` a thread prepares the next batch.
`ours-3` and `ours-1` are vlm-tune on a model that is made sure of its answers (`confident.py`): so many first tokens
have all but a ten-millionth of the probability, where with random weights each is as likely as any other.
`cifar100-lfm-unlisted` asks as a tuned model can be asked: its prompt does not name the hundred classes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_jobs import JOBS, Asked, Examples, draw
from inference_table import LIKELY, NAMES, markdown, not_run
from train_speed import matmul_tflops, read

from vlm_tune import versions

if TYPE_CHECKING:
    from inference_contenders import Answers, Seen, Way

Row = dict[str, Any]
PACKAGES = ("torch", "torchvision", "transformers", "pillow")
ENOUGH_S = 7.0
"""Nothing is timed again after so many seconds."""
EVALUATED = 1024
"""How many photos go through `Evaluator` at most."""


class Bench:
    """Runs what was asked for and keeps the rows."""

    def __init__(self, arguments: argparse.Namespace, checkpoints: Path) -> None:
        started = time.perf_counter()
        import inference_contenders

        self.contenders = inference_contenders
        self.arguments = arguments
        self.checkpoints = checkpoints
        self.stock: Any = None
        self.machine: Row = {
            "import_s": time.perf_counter() - started,
            "tflops": matmul_tflops(256 if arguments.tiny else 8192),
            "gpu": versions.hardware()["gpu"],
            "cores": inference_contenders.CORES,
            "packages": {name: metadata.version(name) for name in PACKAGES},
        }

    def rows(self) -> Iterator[Row]:
        """Do every run and yield its row."""
        for name in self.arguments.jobs:
            asked = draw(name, self.checkpoint(name), images=self.arguments.images, tiny=self.arguments.tiny)
            floor_s = asked.work / 1e12 / self.machine["tflops"]
            facts = self.machine | asked.sizes | {"floor_s": floor_s} | self.contenders.cpu_rates(asked.job)
            for contender in self.arguments.contenders:
                if contender != "vllm" or util.find_spec("vllm"):
                    yield facts | {"job": name, "contender": contender} | self.attempt(asked, contender)
            self.close()

    def checkpoint(self, job: str) -> Path:
        """Return the folder of a job's model, written if it is not there."""
        folder: Path = self.checkpoints / JOBS[job].model
        if not (folder / "config.json").exists():
            import make_random_checkpoint

            make_random_checkpoint.write(JOBS[job].model, folder, tiny=self.arguments.tiny)
        return folder

    def attempt(self, asked: Asked, contender: str) -> Row:
        """Return what was seen, or what went wrong: one failure must not cost the runs that follow."""
        try:
            return self.seen(asked, contender)
        except Exception as error:
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}"[:500]}
        finally:
            self.contenders.free()

    def seen(self, asked: Asked, contender: str) -> Row:
        """Let one contender do the job, or a part of it."""
        if contender in self.contenders.WAYS:
            return self.peer(asked, self.contenders.WAYS[contender])
        self.close()
        return self.vllm(asked) if contender == "vllm" else self.ours(asked, LIKELY[contender])

    def ours(self, asked: Asked, likely: int | None) -> Row:
        """Use vlm-tune, plainly and through an `Evaluator`, and hold its scores to those of one pass per label."""
        started = time.perf_counter()
        with closing(self.contenders.Ours(asked.job, self.arguments.batch_size, likely)) as ours:
            row = {"load_s": time.perf_counter() - started}
            row |= self.timed(ours, asked, len(asked.examples), repeats=self.arguments.repeats)
            examples = asked.examples[:EVALUATED]
            ours.evaluate(asked.others[:2])
            with self.contenders.watched() as evaluated:
                ours.evaluate(examples)
            few = examples[: 4 if asked.sizes["classes"] < 10 else 1]
            return row | {
                "evaluator_s": evaluated.seconds * len(asked.examples) / len(examples),
                "difference": ours.difference(few),
                "compared": len(few),
            }

    def vllm(self, asked: Asked) -> Row:
        """Use vLLM; its memory, which it takes in advance and in a process of its own, is not seen."""
        started = time.perf_counter()
        with closing(self.contenders.VLLM(asked.job, self.new_tokens(asked))) as engine:
            load_s = time.perf_counter() - started
            row = self.timed(engine, asked, self.arguments.limit)
        return row | {"peak_gb": 0.0, "load_s": load_s, "new_tokens": self.new_tokens(asked)}

    def peer(self, asked: Asked, way: Way) -> Row:
        """Use stock transformers in one way."""
        started, loads = time.perf_counter(), self.stock is None
        if loads:
            self.stock = self.contenders.Stock(asked.job)
        load_s = time.perf_counter() - started if loads else 0.0
        most = min(way.most, self.arguments.limit, len(asked.examples))
        writes = self.new_tokens(asked) if way.does == "generate" else 0
        row = self.timed(self.stock.by(way, writes), asked, most, first=way.batch_size + most % way.batch_size)
        if way.labels:
            labels = min(way.labels, asked.sizes["classes"])
            row |= {"labels_done": labels, "whole_s": row["whole_s"] * asked.sizes["classes"] / labels}
        return row | {"load_s": load_s, "new_tokens": writes}

    def timed(
        self,
        answer: Callable[[Examples], Answers],
        asked: Asked,
        most: int,
        *,
        first: int | None = None,
        repeats: int = 1,
    ) -> Row:
        """Time other photos at first and then so many of the job's; from these the whole job is projected."""
        examples, others = asked.examples[:most], asked.others[:first]
        with self.contenders.watched() as new:
            answer(others)
        runs: list[Seen] = []
        while len(runs) < repeats and sum(run.seconds for run in runs) < ENOUGH_S:
            with self.contenders.watched() as run:
                found = answer(examples)
            runs.append(run)
        return {
            "first_use_s": new.seconds,
            "first_images": len(others),
            "images_done": len(examples),
            "runs_s": [run.seconds for run in runs],
            "whole_s": statistics.median(run.seconds for run in runs) * len(asked.examples) / len(examples),
            "peak_gb": max(run.peak_gb for run in runs),
            "reserved_gb": max(run.reserved_gb for run in runs),
            "parsed": sum(label is not None for label in found),
        }

    def new_tokens(self, asked: Asked) -> int:
        """Return how many tokens are written: those of the longest label and the one that ends the turn."""
        return int(self.arguments.new_tokens or asked.sizes["label_tokens"][1])

    def close(self) -> None:
        """Free the stock model."""
        if self.stock is not None:
            self.stock.close()
        self.stock = None


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--jobs", nargs="+", choices=tuple(JOBS), default=list(JOBS)[:3])
    parser.add_argument("--contenders", nargs="+", choices=tuple(NAMES), default=list(NAMES))
    parser.add_argument("--images", type=int, help="of the jobs with a hundred classes")
    parser.add_argument("--limit", type=int, default=256, help="most photos for those that do a part")
    parser.add_argument("--repeats", type=int, default=3, help="of a short job with vlm-tune")
    parser.add_argument("--new-tokens", type=int, help="that generate and vLLM write")
    parser.add_argument("--batch-size", type=int, help="of vlm-tune; chosen by it otherwise")
    parser.add_argument("--json", type=Path, help="file to add the rows to")
    parser.add_argument("--table", nargs="+", type=Path, metavar="JSON", help="print the table of these files only")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size, for a CPU")
    arguments = parser.parse_args()
    if not (arguments.table or arguments.tiny or arguments.checkpoints):
        parser.error("--checkpoints is needed")
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
                print(json.dumps({name: value for name, value in row.items() if name != "packages"}), flush=True)
                if arguments.json:
                    arguments.json.write_text(json.dumps([*read([arguments.json]), row], indent=1))
    print(markdown(rows))
    print(not_run(rows))


if __name__ == "__main__":
    main()
