"""Ten thousand questions to a server that misbehaves, and a client that is killed: is anything lost or paid twice?

    python benchmarks/api_soak.py [--examples 10000] [--faults 0.1] [--kills 3] [--seed 0]

A fake Gemini gives a tenth of its replies a fault, of every kind it has. The client runs in a process of its own, is
killed with -9 at random moments, and started again on the same run folder until it ends. Then it is checked that

- every example has exactly one outcome,
- nothing that was in the journal at a kill, other than failures, was asked about again,
- the server did not do more work than the journal has answers, apart from calls that broke off, and those are the
  calls that the evaluation shows as possibly billed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

import vlm_tune as vt
from vlm_tune import images
from vlm_tune.predictors import GeminiOptions, RetryPolicy
from vlm_tune.testing import FakeGeminiServer, Fault, GeminiRequest

CLASSES = ("red", "green", "blue")
TASK = vt.Task(prompt="What colour is it?", classes=CLASSES)
OPTIONS = GeminiOptions(timeout_s=3.0, concurrency=16, retry=RetryPolicy(first_delay_s=0.1, longest_delay_s=2.0))
BREAKS_OFF = ("malformed", "reset", "stall")


def draw(folder: Path, num_examples: int) -> None:
    """Write tiny photos, no two the same."""
    rng = np.random.default_rng(0)
    for number in range(num_examples):
        path = folder / CLASSES[number % 3] / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def client(url: str, photos: Path, run_dir: Path) -> None:
    """Ask about everything, and write down what came of it: the process that is killed."""
    data = vt.Dataset.from_folder(photos, task=TASK)
    predictor = vt.Gemini("gemini-3-flash-preview", api_key="a-key", base_url=url, options=OPTIONS)
    done = vt.Evaluator(data, run_dir=run_dir).run(predictor)
    ids = Counter(answer.example_id for answer in done.predictions)
    result = {
        "outcomes": dict(done.outcomes),
        "once": len(ids) == len(data) and set(ids.values()) == {1},
        "possibly_billed": done.possibly_billed,
        "cost_usd": done.cost_usd,
        "wall_s": done.wall_s,
    }
    (run_dir / "result.json").write_text(json.dumps(result))


def journal(run_dir: Path) -> list[dict[str, Any]]:
    """Return the answers that are whole in the journal, as somebody else would read them."""
    whole = [
        line for path in (run_dir / "predictions").glob("*.jsonl") for line in path.read_bytes().split(b"\n")[1:-1]
    ]
    return [json.loads(line)["prediction"] for line in whole]


def answered(run_dir: Path) -> set[str]:
    newest = {answer["example_id"]: answer["outcome"] for answer in journal(run_dir)}
    return {example_id for example_id, outcome in newest.items() if outcome != "failed"}


def soak(num_examples: int, share: float, kills: int, seed: int, folder: Path) -> bool:
    """Run it all, print what was found, and return whether every promise was kept."""
    photos, run_dir = folder / "photos", folder / "run"
    run_dir.mkdir()
    draw(photos, num_examples)
    data = vt.Dataset.from_folder(photos, task=TASK)
    names = {images.encode(example.image, max_pixels=TASK.max_pixels).data: example for example in data}

    def answer(request: GeminiRequest) -> str:
        return names[request.image].label

    rng = random.Random(seed)
    kinds = get_args(Fault)
    faults = [rng.choice(kinds) if rng.random() < share else None for _ in range(3 * num_examples)]
    moments = sorted(rng.randrange(num_examples // 20, num_examples) for _ in range(kills))
    asked_again = in_flight = 0
    start = time.perf_counter()
    with FakeGeminiServer(answer, faults=faults) as server:
        command = [sys.executable, __file__, "--client", server.url, str(photos), str(run_dir)]
        for moment in [*moments, None]:
            safe, before = answered(run_dir), len(server.requests)
            process = subprocess.Popen(command)
            while process.poll() is None:
                if moment is not None and len(server.requests) >= moment:
                    os.kill(process.pid, signal.SIGKILL)
                time.sleep(0.005)
            again = [names[request.image].id in safe for request in server.requests[before:]]
            asked_again += sum(again)
            in_flight += 2 * OPTIONS.concurrency if process.returncode == -signal.SIGKILL else 0
            print(f"ended with {process.returncode} after {len(server.requests)} requests, {len(safe)} safe before")
        num_requests, num_billed = len(server.requests), server.num_billed
    seconds = time.perf_counter() - start
    happened = Counter(fault for fault in faults[:num_requests] if fault)
    result = json.loads((run_dir / "result.json").read_text())
    bill = sum("usage" in answer for answer in journal(run_dir))
    broken_off = sum(happened[kind] for kind in BREAKS_OFF)
    excess, shown = num_billed - bill, result["possibly_billed"]
    print(f"{num_examples} examples, {num_requests} requests, {happened.total()} faults: {dict(happened)}")
    print(f"outcomes {result['outcomes']}, {seconds:.0f} s in all, {result['wall_s']:.0f} s asking")
    print(f"asked again although in the journal: {asked_again}")
    print(f"answers made by the server {num_billed}, in the journal {bill}: {excess} more")
    print(f"possibly billed, as shown: {shown}; broken off by faults {broken_off}, in flight at kills <= {in_flight}")
    kept = {
        "every example has exactly one outcome": result["once"] and sum(result["outcomes"].values()) == num_examples,
        "no journalled answer is asked again": asked_again == 0,
        "all the server did is in the journal or shown": 0 <= excess <= shown,
        "no more is shown than broke off": shown <= broken_off + in_flight,
    }
    for promise, holds in kept.items():
        print(f"{'kept  ' if holds else 'BROKEN'}  {promise}")
    return all(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--faults", type=float, default=0.1)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--client", nargs=3, metavar=("URL", "PHOTOS", "RUN_DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        url, photos, run_dir = arguments.client
        client(url, Path(photos), Path(run_dir))
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = soak(arguments.examples, arguments.faults, arguments.kills, arguments.seed, Path(folder))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
