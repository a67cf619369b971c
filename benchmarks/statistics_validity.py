"""Whether every test keeps its level and every interval holds the truth as often as it says, by simulation.

    python benchmarks/statistics_validity.py               # some minutes on one core; prints three tables
    python benchmarks/statistics_validity.py --reps 200    # does it run?

Systems are right about a photo when its ease, part of which all systems and all photos of a group share, is above their
limit. A test's size is how often it rejects where there is nothing; it should be at most 5 % and half a point. An
interval should hold the truth in at least 95 % less one point. For proportions both depend on the true value, up and
down by a point or two as it moves by a percent; so true values are drawn at random for each data set, from the ranges
named, and the mean is what is asked for. Below it stands the least of some fixed values that people meet.
Groups have one to five photos (2.7 on average).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import norm

sys.path.insert(0, str(Path(__file__).parent.parent))

from vlm_tune import statistics as st
from vlm_tune.cost import Cost
from vlm_tune.evaluation import unit_costs
from vlm_tune.evaluation.comparing.counts import decide
from vlm_tune.evaluation.inflation import _difference
from vlm_tune.evaluation.monthly_costs import by_the_hour
from vlm_tune.records import Estimate
from vlm_tune.statistics import several

Array = NDArray[np.float64]
SIZES = (50, 98, 300, 1000)
ALPHA, LEVEL = 0.05, 0.95
several._TURNS = 199  # Exact with any number of turns; 9,999 would only make the p-value finer.
tango, wilson, clopper = cache(st.tango), cache(st.wilson), cache(st.clopper_pearson)
mcnemar, mid_p = cache(st.mcnemar_exact), cache(st.mcnemar_mid_p)


@dataclass
class Findings:
    """Shares by what was asked, in the order in which they came; a limit belongs to each."""

    shares: dict[tuple[str, str], dict[int, list[float]]] = field(default_factory=dict)

    def add(self, kind: str, what: str, n: int, happened: object) -> None:
        self.shares.setdefault((kind, what), {}).setdefault(n, []).append(float(happened))  # type: ignore[arg-type]

    def share(self, kind: str, what: str, n: int) -> float:
        return float(np.mean(self.shares[kind, what][n]))


def groups_of(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the groups of n photos: one to five photos each, shuffled."""
    sizes = rng.integers(1, 6, n)
    return np.repeat(np.arange(n), sizes)[:n]


def rights(
    accuracy: Array, n: int, rng: np.random.Generator, *, load: float = 1.0, shared: float = 0.0, groups: object = None
) -> NDArray[np.bool_]:
    """Return n x k right or wrong: systems have a part of the ease in common, and groups a part of each answer."""
    k = len(accuracy)
    ease = rng.standard_normal((n, 1))
    own = rng.standard_normal((n, k))
    if groups is not None:
        alike = rng.standard_normal((n, k))[np.asarray(groups)]
        own = np.sqrt(shared) * alike + np.sqrt(1 - shared) * own
        ease = np.sqrt(shared) * rng.standard_normal((n, 1))[np.asarray(groups)] + np.sqrt(1 - shared) * ease
    return (load * ease + own) / np.sqrt(1 + load**2) < ndtri(accuracy)


def holds(interval: Estimate, truth: float) -> bool:
    return interval.low - 1e-12 <= truth <= interval.high + 1e-12


def two_systems(found: Findings, n: int, rng: np.random.Generator) -> None:
    """Two systems on the same photos: tests under the null and the published effect, and intervals."""
    level = rng.uniform(0.5, 0.97)
    load = rng.uniform(0, 2)
    same = rights(np.array([level, level]), n, rng, load=load)
    wins, losses = int(np.sum(same[:, 0] & ~same[:, 1])), int(np.sum(same[:, 1] & ~same[:, 0]))
    found.add("size", "exact McNemar", n, mcnemar(wins, losses) < ALPHA)
    found.add("size", "mid-p McNemar (decides nothing)", n, mid_p(wins, losses) < ALPHA)
    seen = rng.multinomial(n, [10 / 98, 4 / 98, 84 / 98])
    found.add("power", "exact McNemar, +6.1 points, 14 % disagree", n, mcnemar(seen[0], seen[1]) < ALPHA)
    found.add("power", "mid-p McNemar, the same", n, mid_p(seen[0], seen[1]) < ALPHA)
    apart = rng.multinomial(n, [0.05, 0.02, 0.93])
    gap = tango(int(apart[0]), int(apart[1]), n)
    verdict = decide(mcnemar(apart[0], apart[1]), gap, alpha=ALPHA, margin=0.03)
    found.add("size", "`equivalent` at a true difference of 3 points", n, verdict == "equivalent")
    one, other = rng.uniform(0.5, 0.97, 2)
    pair = rights(np.array([one, other]), n, rng, load=load)
    wins, losses = int(np.sum(pair[:, 0] & ~pair[:, 1])), int(np.sum(pair[:, 1] & ~pair[:, 0]))
    found.add("coverage", "Tango, difference of accuracies", n, holds(tango(wins, losses, n), one - other))
    right = int(pair[:, 0].sum())
    found.add("coverage", "Wilson, accuracy 50 to 97 %", n, holds(wilson(right, n), one))
    found.add("coverage", "Clopper-Pearson, the same", n, holds(clopper(right, n), one))


def fixed_values(found: Findings, n: int, reps: int, rng: np.random.Generator) -> None:
    """The least coverage over fixed true values: nine accuracies, and six pairs of wins and losses."""
    shares = (0.5, 0.541, 0.6, 0.7, 0.8, 0.827, 0.888, 0.92, 0.95)
    for what, method in (("Wilson", wilson), ("Clopper-Pearson", clopper)):
        least = min(np.mean([holds(method(int(k), n), p) for k in rng.binomial(n, p, reps)]) for p in shares)
        found.add("least", f"{what}, least of nine accuracies", n, least)
    rates = ((10 / 98, 4 / 98), (0.3, 0.05), (0.05, 0.05), (0.15, 0.15), (0.4, 0.1), (0.02, 0.06))
    least = min(
        np.mean([holds(tango(int(b), int(c), n), x - y) for b, c, _ in rng.multinomial(n, [x, y, 1 - x - y], reps)])
        for x, y in rates
    )
    found.add("least", "Tango, least of six pairs", n, least)


def grouped(found: Findings, n: int, rng: np.random.Generator) -> None:
    """The same with photos that belong together, two thirds of whose ease is the group's."""
    groups = groups_of(n, rng)
    level = rng.uniform(0.5, 0.95)
    same = rights(np.array([level, level]), n, rng, shared=0.67, groups=groups)
    found.add("size", "exact McNemar by group", n, st.mcnemar_by_group(same[:, 0], same[:, 1], groups) < ALPHA)
    wins, losses = int(np.sum(same[:, 0] & ~same[:, 1])), int(np.sum(same[:, 1] & ~same[:, 0]))
    found.add("beside", "exact McNemar that ignores the groups", n, mcnemar(wins, losses) < ALPHA)
    better = rights(np.array([0.89, 0.80]), n, rng, shared=0.67, groups=groups)
    found.add("power", "exact McNemar by group, +9 points", n, st.mcnemar_by_group(*better.T, groups) < ALPHA)
    one, other = rng.uniform(0.5, 0.95, 2)
    pair = rights(np.array([one, other]), n, rng, shared=0.67, groups=groups)
    found.add("coverage", "Tango by group", n, holds(st.tango_by_group(*pair.T, groups), one - other))
    found.add("coverage", "Wilson by group", n, holds(st.wilson_by_group(pair[:, 0], groups), one))
    four = rights(np.full(4, level), n, rng, shared=0.67, groups=groups)
    found.add("size", "Cochran's Q by group, four systems", n, st.cochran_q(four, groups=groups)[1] < ALPHA)


def many_systems(found: Findings, n: int, rng: np.random.Generator) -> None:
    """Four systems: Cochran's Q, and the pairs as ComparisonMatrix tests them."""
    level = rng.uniform(0.5, 0.97)
    for name, accuracy in (("all alike", np.full(4, level)), ("one of them 10 points better", [0.7, 0.7, 0.7, 0.8])):
        right = rights(np.asarray(accuracy), n, rng, load=rng.uniform(0, 2))
        q = st.cochran_q(right)[1]
        pairs = [(a, b) for a in range(4) for b in range(a + 1, 4)]
        raw = [mcnemar(*(int(np.sum(right[:, x] & ~right[:, y])) for x, y in ((a, b), (b, a)))) for a, b in pairs]
        adjusted = [max(q, p) for p in st.holm(raw)]
        null = [p for (a, b), p in zip(pairs, adjusted, strict=True) if accuracy[a] == accuracy[b]]
        found.add("size", f"any wrong pair of a matrix, four systems, {name}", n, min(null) < ALPHA)
        found.add("size" if name == "all alike" else "power", f"Cochran's Q, four systems, {name}", n, q < ALPHA)


def scored(n: int, skill: float, sharp: float, ease: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return Brier scores of three classes, the first one true: how far ahead it is, and how sure the model is."""
    logits = sharp * (rng.standard_normal((n, 3)) + np.outer(skill + ease, [1, 0, 0]))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return st.brier(p, np.tile([1.0, 0.0, 0.0], (n, 1))), p


SYSTEMS = ((2, 1, 1, 1), (3, 3, 1, 1), (5, 6, 3.5, 1), (4, 6, 2.5, 1), (3.5, 5, 2, 2))
"""Skill and sharpness of two systems; the third: rare, large mistakes of one that is too sure of itself."""


@cache
def true_brier(place: int) -> tuple[float, float]:
    rng, n = np.random.default_rng(place), 2_000_000
    ease = rng.standard_normal(n)
    a, b, c, d = SYSTEMS[place]
    one, other = scored(n, a, b, ease, rng)[0], scored(n, c, d, ease, rng)[0]
    return float(one.mean()), float((one - other).mean())


def probabilities(found: Findings, n: int, rng: np.random.Generator) -> None:
    """Brier scores, calibration and temperature."""
    place = int(rng.integers(len(SYSTEMS)))
    a, b, c, d = SYSTEMS[place]
    alone, apart = true_brier(place)
    ease = rng.standard_normal(n)
    one, other = scored(n, a, b, ease, rng)[0], scored(n, c, d, ease, rng)[0]
    found.add("coverage", "Brier score", n, holds(st.mean_score(one, worst=2.0), alone))
    found.add("coverage", "difference of Brier scores", n, holds(st.mean(one - other), apart))
    groups = groups_of(n, rng)
    ease = rng.standard_normal(n)[groups]
    gap = scored(n, a, b, ease, rng)[0] - scored(n, c, d, ease, rng)[0]
    found.add("coverage", "difference of Brier scores by group", n, holds(st.mean(gap, groups=groups), apart))
    if place == 2:
        found.add(
            "coverage", "difference of Brier scores, one side sure, seldom wrong", n, holds(st.mean(one - other), apart)
        )
    logits = 2.0 * rng.standard_normal((n, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    hot = np.exp(2 * logits) / np.exp(2 * logits).sum(axis=1, keepdims=True)
    for kind, q, name in (("size", p, "perfectly calibrated"), ("power", hot, "temperature off by 2")):
        z = st.spiegelhalter_z(q, np.eye(3)[truth])[1]
        found.add(kind, f"Spiegelhalter's test, {name}", n, 2 * norm.sf(abs(z)) < ALPHA)
        error = st.calibration_error(q.max(axis=1), q.argmax(axis=1) == truth)
        found.add(kind, f"calibration error against its null, {name}", n, error.p_value < ALPHA)
    found.add("coverage", "temperature", n, holds(st.fit_temperature(2 * logits, truth), 2.0))


def deciding(found: Findings, n: int, rng: np.random.Generator) -> None:
    """How often a promised threshold lets a model decide alone that is not as accurate as promised."""
    models = {"too sure": (6.0, 3.0, 0.4, 0.0), "about right": (4.0, 2.5, 0.6, 0.2)}
    for name, (middle, spread, slope, shift) in models.items():
        odds = middle + spread * rng.standard_normal(n)
        right = rng.random(n) < 1 / (1 + np.exp(-slope * odds - shift))
        chosen = st.safe_threshold(1 / (1 + np.exp(-odds)), right, accuracy=0.95).threshold
        wrong, alone = False, 0.0
        if chosen is not None:
            grid = middle + spread * norm.ppf(np.linspace(0.0005, 0.9995, 1000))
            above = 1 / (1 + np.exp(-grid)) >= chosen
            wrong = (1 / (1 + np.exp(-slope * grid[above] - shift))).mean() < 0.95
            alone = above.mean()
        found.add("size", f"threshold for 95 % accuracy that does not reach it, model {name}", n, wrong)
        found.add("power", f"share decided alone, model {name}", n, alone)


def money(found: Findings, n: int, rng: np.random.Generator) -> None:
    """Times of batches against times of calls, dollars, and a cascade of the two."""
    batches = rng.lognormal(0, 0.3, -(-n // 8))
    spread = rng.uniform(0.2, 0.9)
    calls = rng.lognormal(1, spread, n)
    local, remote = np.exp(0.045), np.exp(1 + spread**2 / 2)
    mine = st.positive_mean(np.repeat(batches, 8)[:n], groups=np.repeat(np.arange(len(batches)), 8)[:n])
    other = st.positive_mean(calls)
    found.add("coverage", "mean seconds of calls", n, holds(other, remote))
    found.add("coverage", "speed ratio, batches of 8 against calls", n, holds(st.ratio(other, mine), remote / local))
    tokens = 1180 + 5 + rng.lognormal(5, 0.8, n) * 5
    dear = 1185 + 5 * np.exp(5.32)
    cheap = st.positive_mean(600 + rng.lognormal(4, 0.5, n))
    base = 600 + np.exp(4.125)
    priced = st.positive_mean(tokens)
    found.add("coverage", "cost ratio of two APIs", n, holds(st.ratio(cheap, priced), base / dear))
    share = rng.uniform(0.05, 0.7)
    asked = wilson(int(rng.binomial(n, share)), n)
    costs = [Cost(usd=one.value, low=one.low, high=one.high, basis="") for one in (mine, priced)]
    value = cascade_cost(costs[0], costs[1], asked)
    found.add("coverage", "cost of a cascade", n, value.low <= local + share * dear <= value.high)
    found.add("coverage", "an API's image", n, holds(priced, dear))
    seconds = 800 * np.repeat(batches, 8)[:n]
    images = unit_costs._mean(seconds, unit_costs._stretches(seconds))[0]
    found.add("coverage", "a GPU's image, by stretches of the run", n, holds(images, 800 * local))
    ours, theirs = (Cost(usd=one.value, low=one.low, high=one.high, basis="") for one in (images, priced))
    meets, truth = by_the_hour(1.0, theirs, ours), 1 / (dear - 800 * local)
    held = (meets.low or np.inf) <= truth <= (meets.high or np.inf)
    found.add("coverage", "break-even of the two", n, held)


def cascade_cost(first: Cost, second: Cost, asked: Estimate) -> Cost:
    from vlm_tune.evaluation.calibration.cascade import cost_of_both

    return cost_of_both(first, second, asked)


def classes(found: Findings, n: int, rng: np.random.Generator) -> None:
    """Macro recall, F1 and the leakage inflation."""
    recall = rng.uniform(0.6, 0.95, 5)
    label = rng.integers(0, 5, n)
    wrong = (label + rng.integers(1, 5, n)) % 5
    said = np.where(rng.random(n) < recall[label], label, wrong)
    counts = [(int(np.sum((label == c) & (said == c))), int(np.sum(label == c))) for c in range(5)]
    found.add("coverage", "macro recall", n, holds(st.mean_of_proportions([wilson(*c) for c in counts]), recall.mean()))
    scores = st.f1_scores(np.eye(5)[label], np.eye(5)[said])
    missed = 1 - recall
    said_rate = recall / 5 + (missed.sum() - missed) / 20
    truth = 2 * (recall / 5) / (1 / 5 + said_rate)
    found.add("coverage", "macro F1", n, holds(scores.macro, truth.mean()))
    found.add("coverage", "F1 of one class", n, holds(scores.per_class[0].f1, truth[0]))
    several_labels = rng.random((n, 4)) < 0.4
    hit = rng.random((n, 4)) < 0.85
    answered = np.where(hit, several_labels, ~several_labels)
    micro = 2 * 0.4 * 0.85 / (0.4 + 0.4 * 0.85 + 0.6 * 0.15)
    found.add(
        "coverage", "micro F1, several classes a photo", n, holds(st.f1_scores(several_labels, answered).micro, micro)
    )
    half = n // 2
    p = rng.uniform(0.6, 0.95, 2)
    leaked, clean = (int(rng.binomial(half, x)) for x in p)
    gap = _difference(wilson(leaked, half), wilson(clean, half), method="")
    found.add("coverage", "leaked less clean photos", n, holds(gap, p[0] - p[1]))


STUDIES: tuple[tuple[Callable[[Findings, int, np.random.Generator], None], float], ...] = (
    (two_systems, 5.0),
    (grouped, 2.0),
    (many_systems, 4.0),
    (probabilities, 1.0),
    (deciding, 1.0),
    (money, 1.0),
    (classes, 0.5),
)
"""What is simulated, and how many times as often as --reps says."""

LIMITS = {"size": 0.055, "coverage": 0.94}


def table(found: Findings, title: str, kinds: tuple[str, ...]) -> None:
    print(f"\n### {title}\n\n| | {' | '.join(f'n = {n:,}' for n in SIZES)} | data sets |\n|{'---|' * (len(SIZES) + 2)}")
    for (kind, what), by_n in found.shares.items():
        if kind not in kinds:
            continue
        shares = [found.share(kind, what, n) for n in SIZES]
        bad = [
            (kind == "size" and share > LIMITS["size"]) or (kind == "coverage" and share < LIMITS["coverage"])
            for share in shares
        ]
        cells = [f"{100 * share:.1f}{' (!)' if wrong else ''}" for share, wrong in zip(shares, bad, strict=True)]
        reps = len(by_n[SIZES[0]])
        print(f"| {what} | {' | '.join(cells)} | {reps if reps > 1 else ''} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reps", type=int, default=4000, help="simulated data sets, most studies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one study")
    arguments = parser.parse_args()
    began, found = time.monotonic(), Findings()
    for number, (study, share) in enumerate(STUDIES):
        if arguments.only not in (None, study.__name__):
            continue
        start = time.monotonic()
        for n in SIZES:
            rng = np.random.default_rng([arguments.seed, number, n])
            for _ in range(max(1, round(share * arguments.reps))):
                study(found, n, rng)
            if study is two_systems:
                fixed_values(found, n, arguments.reps, rng)
        print(f"{study.__name__}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    table(found, "Size, in % (nominal 5; at most 5.5)", ("size", "beside"))
    table(found, "Power, in %", ("power",))
    table(found, "Coverage, in % (nominal 95; at least 94)", ("coverage", "least"))
    print(f"\n{arguments.reps} data sets a row where nothing else is said, {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
