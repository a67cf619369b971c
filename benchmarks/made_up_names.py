"""The demo with class names that mean nothing: what the tiny model does before and after it is taught them.

    python benchmarks/made_up_names.py --seeds 0 1

The folders of the drawn photos keep their names, as aliases; every predictor is asked for blick, torvan or mupel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import vlm_tune as vt

NAMES = {"blick": "crack", "torvan": "dent", "mupel": "scratch"}


def main() -> None:
    """Run the demo's recipe once for each seed and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/made-up-names"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = vt.Task(
        prompt=vt.demo.task().prompt,
        classes=tuple(NAMES),
        aliases={name: (folder,) for name, folder in NAMES.items()},
    )
    rows = ["| seed | majority | zero-shot | tuned and merged |", "|---|---|---|---|"]
    for seed in arguments.seeds:
        recipe = vt.demo.recipe(seed=seed, out=arguments.out)
        # The gate asks for ten of ten after a hundred steps: names never seen before take longer.
        changes = {"task": task, "overfit": False, "opponents": ()}
        result = recipe.model_copy(update=changes).run()
        cells = [evaluation.accuracy.percent() for evaluation in result.evaluations]
        rows.append(f"| {seed} | {' | '.join(cells)} |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
