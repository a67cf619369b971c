"""How much memory an evaluation of a million examples adds to the process, and how long each takes.

    python benchmarks/evaluation_memory.py --examples 1000000

Each row is a process of its own, and counting begins when the dataset is there and a small one has been evaluated,
so that every library is loaded. The predictor answers at once, so that everything measured is ours; its answers have
scores, latency, tokens and dollars. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlm_tune import Example, Prediction, Task
from vlm_tune.records import Usage

CASES = ("no run_dir", "with a run_dir", "replayed")


class Quick:
    """Answers at once, as an API would."""

    name, fingerprint = "quick", "quick-1"

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield the same answer every time."""
        usage = Usage(input_tokens=1180, image_tokens=1120, output_tokens=5)
        scores = {"crack": -0.1, "dent": -2.6, "scratch": -4.0}
        for example in examples:
            yield Prediction(
                example_id=example.id,
                outcome="answered",
                label="crack",
                scores=scores,
                raw='"crack"',
                latency_s=0.01,
                usage=usage,
                cost_usd=0.0006,
                model_version="quick-001",
            )


def memory_mb(field: str) -> float:
    """Return this process's memory: `VmRSS` in use now, `VmHWM` the most since the last reset."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) / 1024


def measure(num: int, case: str, folder: str) -> dict[str, float]:
    """Evaluate once in this process."""
    import vlm_tune as vt
    from vlm_tune.testing import tiny_dataset

    classes = ("crack", "dent", "scratch")
    task = vt.Task(prompt="What kind of damage?", classes=classes)
    photos = [vt.Example(id=f"photos/{i:07d}.jpg", image=b"%d" % i, label=classes[i % 3]) for i in range(num)]
    data = vt.Dataset(photos, task=task)
    del photos
    with tempfile.TemporaryDirectory() as small:
        assert vt.Evaluator(tiny_dataset(4), run_dir=small).run(vt.Baseline.random()).accuracy.n
    Path("/proc/self/clear_refs").write_text("5")
    before, start = memory_mb("VmRSS"), time.perf_counter()
    evaluation = vt.Evaluator(data, run_dir=None if case == "no run_dir" else folder).run(Quick())
    seconds = time.perf_counter() - start
    assert evaluation.accuracy.n == num
    return {
        "before_mb": before,
        "kept_mb": memory_mb("VmRSS") - before,
        "peak_mb": memory_mb("VmHWM") - before,
        "table_mb": evaluation.table.nbytes / 1e6,
        "us_each": seconds / num * 1e6,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.examples[0], options.case, options.folder)))
        return
    print("| examples | case | dataset, MB | added at most, MB | added and kept, MB | table, MB | µs an example |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for num in options.examples:
        with tempfile.TemporaryDirectory() as folder:
            for case in CASES:
                command = [sys.executable, __file__, "--examples", str(num), "--case", case, "--folder", folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                got = json.loads(done.stdout.splitlines()[-1])
                shown = (got["before_mb"], got["peak_mb"], got["kept_mb"], got["table_mb"], got["us_each"])
                print(f"| {num:,} | {case} | " + " | ".join(f"{value:,.0f}" for value in shown) + " |", flush=True)


if __name__ == "__main__":
    main()
