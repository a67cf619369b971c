"""How often the band of a learning curve's forecast holds the truth, on curves that are known.

    python benchmarks/curve_coverage.py                 # some five minutes on two cores; prints one table
    python benchmarks/curve_coverage.py --curves 20     # does it run?

A curve is drawn (its family's formula, random numbers), and models are trained on 25 to 400 images in words only: three
seeds a size, each of whose error is off by 10 % of itself (standard deviation), on the same test images, which are hard
for all of them alike (correlation 0.6) or not. Then the band of 800 and of 1,600 images, made from the points as a user
would make it, is compared with the curve: the error expected on new photos. `new runs` is another question: whether the
mean of three new trainings, measured on the very same test images, lies in the band too. `growth` is the interval
of the points gained per doubling from the smallest size to the largest, which fits no family.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

sys.path.insert(0, str(Path(__file__).parent.parent))

from vlm_tune.experiments import CurvePoint, LearningCurve

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

SIZES = (25, 50, 100, 200, 400)
ASKED = (800, 1600)
SEEDS = 3
SEED_NOISE = 0.10
ALIKE = 0.6
"""Correlation of two models' difficulties with one image, on the normal scale."""


def pow3(generator: np.random.Generator) -> Curve:
    """Draw the error at 25 images, what is left at the end, and the exponent."""
    start, end, b = generator.uniform(0.3, 0.65), generator.uniform(0.0, 0.2), generator.uniform(0.3, 1.2)
    return lambda n: end + (start - end) * (n / 25) ** -b


def pow4(generator: np.random.Generator) -> Curve:
    """The same, and up to 150 images that count as seen."""
    start, end, b = generator.uniform(0.3, 0.65), generator.uniform(0.0, 0.2), generator.uniform(0.5, 2.0)
    d = generator.uniform(0.0, 150.0)
    return lambda n: end + (start - end) * ((n + d) / (25 + d)) ** -b


def exponential(generator: np.random.Generator) -> Curve:
    """The error falls by a factor e with 40 to 600 images."""
    start, end, rate = generator.uniform(0.3, 0.65), generator.uniform(0.0, 0.2), 1 / generator.uniform(40, 600)
    return lambda n: end + (start - end) * np.exp(-rate * (n - 25))


def mmf(generator: np.random.Generator) -> Curve:
    """Morgan-Mercer-Flodin, (a b + c n^d) / (b + n^d): an S over log n whose middle lies between 50 and 400 images."""
    start, end = generator.uniform(0.4, 0.7), generator.uniform(0.0, 0.2)
    middle, d = np.exp(generator.uniform(np.log(50), np.log(400))), generator.uniform(0.8, 2.5)
    return lambda n: end + (start - end) / (1 + (n / middle) ** d)


def bump(generator: np.random.Generator) -> Curve:
    """A power law with a hill of up to 6 points somewhere among the sizes, as in double descent."""
    base, height, at = pow3(generator), generator.uniform(0.02, 0.06), generator.uniform(np.log(50), np.log(400))
    return lambda n: base(n) + height * np.exp(-0.5 * ((np.log(n) - at) / 0.5) ** 2)


TRUTHS = {"pow3": pow3, "pow4": pow4, "exponential": exponential, "MMF": mmf, "bump": bump}
OURS = ("pow3", "pow4", "exponential")


@dataclass(frozen=True)
class Job:
    """Some simulated curves of one kind."""

    truth: str
    n_test: int
    by_image: bool
    curves: int
    seed: int


@dataclass(frozen=True)
class Simulated:
    """Test images that models are asked about."""

    curve: Curve
    ease: Array
    generator: np.random.Generator

    def answers(self, size: int) -> NDArray[np.bool_]:
        """Train once and answer."""
        mean = float(self.curve(np.array([float(size)]))[0])
        error = np.clip(mean * (1 + SEED_NOISE * self.generator.standard_normal()), 1e-6, 1 - 1e-6)
        own = self.generator.standard_normal(len(self.ease))
        ease: Array = np.sqrt(ALIKE) * self.ease + np.sqrt(1 - ALIKE) * own
        return ease >= float(ndtri(error))


def measure(job: Job) -> list[tuple[bool, bool, float, float]]:
    """Return, for each curve and asked size: band holds the curve, holds new runs, its width, value less curve.

    Behind the asked sizes, the same of the growth, without new runs.
    """
    found = []
    for number in range(job.curves):
        generator = np.random.default_rng([job.seed, number, job.n_test, list(TRUTHS).index(job.truth)])
        curve = TRUTHS[job.truth](generator)
        models = Simulated(curve, generator.standard_normal(job.n_test), generator)
        points = []
        for size in SIZES:
            for seed in range(SEEDS):
                point = CurvePoint.of_answers(models.answers(size), size=size, seed=seed)
                points.append(point if job.by_image else point.model_copy(update={"rightness": None}))
        measured = LearningCurve(points=tuple(points), classes=("crack", "dent"), chance=0.5)
        for n in ASKED:
            band = measured.forecast(n).accuracy
            truth = 1 - float(curve(np.array([float(n)]))[0])
            again = float(np.mean([models.answers(n).mean() for _ in range(SEEDS)]))
            inside, new = band.low <= truth <= band.high, band.low <= again <= band.high
            found.append((inside, new, band.high - band.low, band.value - truth))
        growth, ends = measured.growth(), curve(np.array([SIZES[0], SIZES[-1]], dtype=float))
        truth = float(ends[0] - ends[1]) / float(np.log2(SIZES[-1] / SIZES[0]))
        found.append((growth.low <= truth <= growth.high, True, growth.high - growth.low, growth.value - truth))
    return found


def row(job: Job, results: list[tuple[bool, bool, float, float]]) -> str:
    """Return one line of the table."""
    table = np.array(results, dtype=float).reshape(-1, len(ASKED) + 1, 4)
    cells = []
    for place in range(len(ASKED)):
        inside, new, width, off = table[:, place].T
        cells += [f"{inside.mean():.1%}", f"{new.mean():.1%}", f"{100 * width.mean():.1f}", f"{100 * off.mean():+.1f}"]
    inside, _, width, off = table[:, -1].T
    cells += [f"{inside.mean():.1%}", f"{100 * width.mean():.1f}", f"{100 * off.mean():+.1f}"]
    known = "each image" if job.by_image else "counts"
    return f"| {job.truth} | {job.n_test:,} | {known} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=int, default=200, help="simulated curves a row")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    jobs = [
        Job(truth, n_test, by_image, arguments.curves, arguments.seed)
        for truth in TRUTHS
        for n_test in (98, 1000)
        for by_image in (True, False)
    ]
    heads = [head for n in ASKED for head in (f"{n:,}: holds", "new runs", "width", "off")]
    heads += ["growth: holds", "width", "off"]
    print(f"| curve | test images | known | {' | '.join(heads)} |\n|{'---|' * (3 + len(heads))}")
    ours: list[tuple[bool, bool, float, float]] = []
    with ProcessPoolExecutor(arguments.workers) as pool:
        for job, results in zip(jobs, pool.map(measure, jobs), strict=True):
            print(row(job, results), flush=True)
            ours += results if job.truth in OURS else []
    held = np.array([inside for inside, *_ in ours], dtype=float).reshape(-1, len(ASKED) + 1)
    bands = held[:, : len(ASKED)]
    print(f"\nOver the families fitted: {bands.mean():.1%} of {bands.size:,} bands hold the curve; nominal 95 %.")
    print(f"Growth per doubling: {held[:, -1].mean():.1%} of {len(held):,} intervals hold it; nominal 95 %.")
    print(f"{arguments.curves} curves a row, {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
