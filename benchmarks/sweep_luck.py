"""How often a sweep is right about its winner: intervals that hold the truth, and winners called better for nothing.

    python benchmarks/sweep_luck.py                 # some ten minutes on one core; prints two tables
    python benchmarks/sweep_luck.py --expected      # the second table only
    python benchmarks/sweep_luck.py --sweeps 20     # does it run?

Right answers are drawn: each photo is easy or hard for all settings, easier or harder for one of them, each training
has its luck with all photos, and with each by itself (normal, of the widths in the first column; accuracy 80 %). Three
seeds. `coverage` is that of `difference_over_seeds` between two settings that are equal, or eight points apart. `for
nothing` is the share of sweeps of equal settings in which the most accurate of several candidates was chosen on the
photos, was trained again, and comes out better than the start: by the plain interval, and with the choice allowed for.

The second table is about `best_of_many`, the accuracy to expect of the most accurate candidate: how often its interval
holds the accuracy of that very training on other photos, how far the estimate is off, and the same of the accuracy that
it was chosen by. Candidates are equal, or differ by so many points (standard deviation).
"""

from __future__ import annotations

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parent.parent))

from vlm_tune.experiments.luck import best_of_many, difference_over_seeds
from vlm_tune.statistics import wilson

SEEDS, ACCURACY = 3, 0.8
WIDTHS = ((2.0, 0.5, 0.1, 0.5), (2.0, 0.5, 0.5, 0.5), (2.0, 1.0, 0.1, 0.3), (0.5, 1.5, 0.0, 0.1))
"""Of photos, of photos for one setting, of trainings, of a training with one photo."""


class World:
    """Draws right answers."""

    def __init__(self, widths: tuple[float, float, float, float], photos: int, generator: np.random.Generator) -> None:
        self.widths, self.generator = widths, generator
        self.photos = generator.normal(0, widths[0], photos)

    def setting(self, accuracy: float = ACCURACY) -> NDArray[np.float64]:
        middle = norm.ppf(accuracy) * float(np.linalg.norm(self.widths))
        return middle + self.photos + self.generator.normal(0, self.widths[1], len(self.photos))

    def trained(self, setting: NDArray[np.float64], seeds: int) -> list[list[bool]]:
        luck = self.generator.normal(0, self.widths[2], (seeds, 1))
        luck = luck + self.generator.normal(0, self.widths[3], (seeds, len(setting)))
        return (setting + luck > 0).tolist()


def coverage(widths: tuple[float, float, float, float], photos: int, gap: float, times: int) -> float:
    generator, held = np.random.default_rng(0), 0
    for _ in range(times):
        world = World(widths, photos, generator)
        sides = [world.trained(world.setting(ACCURACY + more), SEEDS) for more in (gap, 0.0)]
        found = difference_over_seeds(sides[0], sides[1])
        held += found.low <= gap <= found.high
    return held / times


def for_nothing(widths: tuple[float, float, float, float], photos: int, candidates: int, times: int) -> list[float]:
    generator, called = np.random.default_rng(1), np.zeros(2)
    for _ in range(times):
        world = World(widths, photos, generator)
        settings = [world.setting() for _ in range(candidates + 1)]
        right = [sum(world.trained(one, 1)[0]) for one in settings[1:]]
        winner, start = (world.trained(one, SEEDS) for one in (settings[1 + int(np.argmax(right))], settings[0]))
        called += [difference_over_seeds(winner, start, num_compared=k).low > 0 for k in (1, candidates)]
    return list(called / times)


def expected(photos: int, candidates: int, spread: float, times: int) -> list[float]:
    """Return, for the estimate and for the accuracy itself, coverage and mean distance from the truth in points."""
    generator, found = np.random.default_rng(2), list[list[float]]()
    widths = WIDTHS[2]
    total = float(np.linalg.norm(widths))
    for _ in range(times):
        world = World(widths, photos, generator)
        middles = norm.ppf(np.clip(ACCURACY + spread * generator.standard_normal(candidates), 0.3, 0.97)) * total
        middles += generator.normal(0, widths[2], candidates)
        own = generator.normal(0, float(np.hypot(widths[1], widths[3])), (candidates, photos))
        right = middles[:, None] + world.photos + own > 0
        best = int(np.argmax(right.sum(axis=1)))
        truth = float(norm.cdf(middles[best] / np.sqrt(total**2 - widths[2] ** 2)))
        both = best_of_many(right.tolist()), wilson(int(right[best].sum()), photos)
        found += [[100 * (one.low <= truth <= one.high), 100 * (one.value - truth)] for one in both]
    return list(np.reshape(found, (times, 4)).mean(axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=1000, help="how many are drawn for each cell")
    parser.add_argument("--expected", action="store_true", help="only what is to be expected of the winner")
    given = parser.parse_args()
    if not given.expected:
        confirmations(given.sweeps)
    print("| candidates | apart | photos | expected: holds | off | its own accuracy: holds | off |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for spread, candidates, photos in product((0.0, 0.05), (12, 40), (50, 100, 400)):
        held, off, plain, plain_off = expected(photos, candidates, spread, given.sweeps)
        numbers = f"{held:.1f} | {off:+.1f} | {plain:.1f} | {plain_off:+.1f}"
        print(f"| {candidates} | {100 * spread:g} | {photos} | {numbers} |", flush=True)


def confirmations(times: int) -> None:
    print(f"{'':>22} {'':>6} {'coverage':>16} {'for nothing, of 12':>20} {'of 40':>16}")
    print(f"{'widths':>22} {'photos':>6} {'equal   apart':>16} {'plain allowed':>20} {'plain allowed':>16}")
    for widths, photos in product(WIDTHS, (50, 100, 400)):
        held = "   ".join(f"{coverage(widths, photos, gap, times):.3f}" for gap in (0.0, 0.08))
        few, many = (
            "   ".join(f"{share:.3f}" for share in for_nothing(widths, photos, candidates, times))
            for candidates in (12, 40)
        )
        name = " ".join(f"{width:g}" for width in widths)
        print(f"{name:>22} {photos:>6} {held:>16} {few:>20} {many:>16}", flush=True)


if __name__ == "__main__":
    main()
