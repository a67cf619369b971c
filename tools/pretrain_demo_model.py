"""Pretrains the small vision-language model that ships with vlm-tune, from nothing, on procedurally drawn pictures.

The model is a `Qwen3VLForConditionalGeneration` with small numbers. It learns colours, shapes, counts, textures and
marks of many kinds from drawings with captions and closed questions, and to answer with whatever label words a prompt
offers. It never sees a photo, and none of the drawing code of the demo's own photos. The words crack, dent and scratch
are left out, and taught in a short last lesson on abstract drawings: the demo starts from a model that is weak at them.

    python tools/pretrain_demo_model.py --minutes 16 --out runs/main        # on one data-centre GPU with 16 cores
    python tools/pretrain_demo_model.py --lesson --start runs/main          # minutes on a CPU; writes the package's
    python tools/pretrain_demo_model.py --tiny --steps 20 --out runs/try    # a look at how it works, on a CPU
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from demo_model.architecture import TINY, Size
from demo_model.feed import Plan
from demo_model.run import Options, run
from demo_model.train import Schedule

DEFAULT_OUT = Path(__file__).parents[1] / "vlm_tune" / "demo" / "tiny-qwen3-vl"


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=DEFAULT_OUT, help="folder to write (default: the package's)")
    add("--start", type=Path, help="folder of an earlier run to go on from")
    add("--lesson", action="store_true", help="teach crack, dent and scratch: few steps, the embeddings alone")
    add("--minutes", type=float, help="stop after so much training, wall clock (default 8, none for a lesson)")
    add("--steps", type=int, help="stop after so many steps (default none, 36 for a lesson)")
    add("--batch", type=int, help="pictures a step (default 1024, 48 for a lesson)")
    add("--questions", type=int, default=3, help="questions a picture (default 3)")
    add("--fresh", type=float, help="share of pictures not seen before (default 0.25, 1 for a lesson)")
    add("--learning-rate", type=float, help="its peak (default 0.002, 0.003 for a lesson)")
    add("--workers", type=int, help="drawing processes (default: cores less 3, none for a lesson)")
    add("--seed", type=int, default=0)
    add("--tiny", action="store_true", help="a much smaller model, to try the script")
    add("--eval-pictures", type=int, default=4000, help="pictures for the evaluation at the end (default 4000)")
    given = parser.parse_args(arguments)
    if given.lesson and not given.start:
        parser.error("--lesson needs --start: the folder of the main run")
    return _options(given)


def _options(given: argparse.Namespace) -> Options:
    usual = (None, 36, 48, 1.0, 0) if given.lesson else (8.0, None, 1024, 0.25, max(0, (os.cpu_count() or 1) - 3))
    asked = (given.minutes, given.steps, given.batch, given.fresh, given.workers)
    minutes, steps, batch, fresh, workers = (
        default if value is None else value for value, default in zip(asked, usual, strict=True)
    )
    return Options(
        out=given.out,
        size=TINY if given.tiny else Size(),
        schedule=Schedule(
            seconds=minutes * 60 if minutes else math.inf,
            steps=steps,
            learning_rate=given.learning_rate or (3e-3 if given.lesson else 2e-3),
        ),
        plan=Plan(num_pictures=batch, questions_each=given.questions, fresh=fresh, lesson=given.lesson),
        start=given.start,
        seed=given.seed,
        workers=workers,
        num_texts=200 if given.tiny else 800,
        eval_pictures=given.eval_pictures,
    )


if __name__ == "__main__":
    run(parse())
