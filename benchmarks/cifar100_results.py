"""Figures, tables and pictures of what `cifar100_experiment.py` left in a folder, finished or not.

    python benchmarks/cifar100_results.py runs/cifar [--json cifar100.json] [--pictures docs/assets]

Forecasts are fitted to the smaller sizes alone and held against what the largest gave. Differences between variants are
of the same test images: their interval is about test images and seeds (`LearningCurve.gain_over`), and the differences
seed by seed stand beside it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import vlm_tune as vt
from vlm_tune.errors import ForecastError

Figures = dict[str, Any]


def curves_of(folder: Path) -> dict[str, vt.LearningCurve]:
    """Return the curve of each variant: the points of all its seeds, as far as they are there."""
    kept = [path for path in folder.glob("*/*/points/*.json") if "point" in json.loads(path.read_text())]
    classes = tuple(json.loads((folder / "classes.json").read_text()))
    curves = {}
    for variant in sorted({path.parents[2].name for path in kept}, key=_plain_first):
        found = [json.loads(path.read_text())["point"] for path in kept if path.parents[2].name == variant]
        points = tuple(map(vt.CurvePoint.model_validate, found))
        curves[variant] = vt.LearningCurve(points=points, classes=classes, chance=1 / len(classes), name=variant)
    return curves


def _plain_first(variant: str) -> tuple[bool, str]:
    return variant != "none", variant


def ends(estimate: vt.Estimate | None) -> list[float] | None:
    """Return an estimate and its interval, rounded, for a file."""
    return None if estimate is None else [round(one, 5) for one in (estimate.value, estimate.low, estimate.high)]


def gain(curve: vt.LearningCurve, reference: vt.LearningCurve, size: int) -> tuple[vt.Estimate | None, list[float]]:
    """Return how much more accurate a variant is at a size, and by how much with each seed that both have.

    There is no interval where there is one seed only: its luck cannot be told from the gain.
    """
    mine, its = (
        {point.seed: point.accuracy.value for point in one.points if point.size == size} for one in (curve, reference)
    )
    by_seed = [mine[seed] - its[seed] for seed in sorted(mine.keys() & its.keys())]
    try:
        return curve.gain_over(reference, size), by_seed
    except ForecastError:
        return None, by_seed


def figures(folder: Path) -> Figures:
    """Return everything that was measured, small enough to keep."""
    curves = curves_of(folder)
    told: Figures = {"variants": {name: _of_curve(curve) for name, curve in curves.items()}}
    if (folder / "alone.json").exists():
        zero_shot = vt.Evaluation.load(folder / "zero-shot.parquet")
        told = {**json.loads((folder / "alone.json").read_text()), "zero_shot": ends(zero_shot.accuracy), **told}
    plain = curves.get("none")
    for name, curve in curves.items():
        if plain is None or curve is plain:
            continue
        rows = []
        for size in sorted(set(curve.sizes) & set(plain.sizes)):
            difference, by_seed = gain(curve, plain, size)
            rows.append({"size": size, "gain": ends(difference), "by_seed": [round(one, 5) for one in by_seed]})
        told["variants"][name]["against_none"] = rows
    return told


def _of_curve(curve: vt.LearningCurve) -> Figures:
    told: Figures = {"sizes": []}
    for size in curve.sizes:
        points = [point for point in curve.points if point.size == size]
        by_seed = {
            point.seed: {
                "test": point.accuracy.value,
                "train": point.train_accuracy and point.train_accuracy.value,
                "seconds": point.seconds,
            }
            for point in points
        }
        means = {"accuracy": ends(curve.accuracy_at(size)), "gap": ends(curve.gap_at(size))}
        told["sizes"].append({"size": size, **means, "by_seed": by_seed})
    try:
        told["growth_per_doubling"] = {
            f"{low}-{high}": ends(curve.growth(low, high))
            for low, high in [*zip(curve.sizes, curve.sizes[1:], strict=False), (curve.sizes[0], curve.sizes[-1])]
        }
        foretold = curve.hindcast()
        told["forecast"] = {
            "from": foretold.sizes,
            "at": foretold.forecast.n,
            "expected": ends(foretold.forecast.accuracy),
            "measured": ends(foretold.measured),
            "held": foretold.held,
            "remarks": foretold.forecast.remarks,
        }
        told["twice_as_many"] = ends(curve.forecast(2 * curve.sizes[-1]).accuracy)
    except ForecastError as error:
        told["forecast"] = {"none": str(error)}
    return told


def markdown(told: Figures) -> str:
    """Return the tables."""
    return "\n".join([*_about(told), *_accuracies(told["variants"]), "", *_forecasts(told["variants"])])


def _about(told: Figures) -> list[str]:
    if "zero_shot" not in told:
        return []
    model, speeds = told["model"], told["images_per_second"]
    return [
        f"{model['architecture']}, {model['parameters'] / 1e6:.1f} M parameters "
        f"({told['trained_parameters'] / 1e6:.2f} M trained), {told['machine']['gpu'] or 'CPU'}. "
        f"Zero-shot: {_percent(told['zero_shot'])} of {told['images']['test']:,} test images.",
        "Images/s: " + ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items()) + ".",
        "",
    ]


def _accuracies(variants: Mapping[str, Figures]) -> list[str]:
    lines = ["| variant | training images | test accuracy | training less test | against none | the same, by seed |"]
    lines.append("|---|---|---|---|---|---|")
    for name, of in variants.items():
        against = {row["size"]: row for row in of.get("against_none", [])}
        for row in of["sizes"]:
            cells = [name, f"{row['size']:,}", _percent(row["accuracy"]), _points(row["gap"]), "", ""]
            if other := against.get(row["size"]):
                cells[4:] = [_points(other["gain"]), ", ".join(f"{100 * one:+.1f}" for one in other["by_seed"])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _forecasts(variants: Mapping[str, Figures]) -> list[str]:
    lines = ["| variant | expected | from | measured | in the band | gain per doubling |", "|---|---|---|---|---|---|"]
    for name, of in variants.items():
        made = of["forecast"]
        if "at" not in made:
            lines.append(f"| {name} | {made['none']} | | | | |")
            continue
        _, whole = list(of["growth_per_doubling"].items())[-1]
        cells = [name, f"{_percent(made['expected'])} of {made['at']:,}"]
        cells += [f"{made['from'][0]:,} to {made['from'][-1]:,}", _percent(made["measured"])]
        lines.append(f"| {' | '.join([*cells, 'yes' if made['held'] else 'no', _points(whole)])} |")
    return lines


def _percent(three: list[float]) -> str:
    return f"{100 * three[0]:.1f} % [{100 * three[1]:.1f}, {100 * three[2]:.1f}]"


def _points(three: list[float] | None) -> str:
    return "" if three is None else f"{100 * three[0]:+.1f} [{100 * three[1]:+.1f}, {100 * three[2]:+.1f}]"


def pictures(folder: Path, to: Path) -> list[Path]:
    """Draw each curve with the band of its smaller sizes, and all variants in one; return the files."""
    curves, made = curves_of(folder), []
    path = folder / "zero-shot.parquet"
    against = {"zero-shot": vt.Evaluation.load(path).accuracy} if path.exists() else {}
    to.mkdir(parents=True, exist_ok=True)
    for name, curve in curves.items():
        # The band of the smaller sizes reaches to four times the largest of them.
        until = curve.sizes[-2] if len(curve.sizes) > 4 else None
        made.append(to / f"cifar100_{name}.png")
        curve.plot(against=against, until=until).savefig(made[-1], dpi=110)
    made.append(to / "cifar100_variants.png")
    _together(curves).savefig(made[-1], dpi=110)
    return made


def _together(curves: Mapping[str, vt.LearningCurve]) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, PercentFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        at = [size * math.exp(0.03 * (place - (len(curves) - 1) / 2)) for size in curve.sizes]
        found = [curve.accuracy_at(size) for size in curve.sizes]
        away = [[one.value - one.low for one in found], [one.high - one.value for one in found]]
        line = axes.errorbar(at, [one.value for one in found], away, marker="o", capsize=2, label=name)
        gaps = [curve.gap_at(size) for size in curve.sizes]
        trained = [one.value + (gap.value if gap else math.nan) for one, gap in zip(found, gaps, strict=True)]
        axes.plot(at, trained, linestyle=":", color=line[0].get_color())
    sizes = sorted({size for curve in curves.values() for size in curve.sizes})
    axes.set(xscale="log", xlabel="training images", ylabel="accuracy (dotted: on training images)")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend()
    return figure


def main() -> None:
    """Read the command line, print the tables and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what cifar100_experiment.py was given as --out")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--pictures", type=Path, help="folder for the pictures")
    given = parser.parse_args()
    told = figures(given.folder)
    print(markdown(told))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    if given.pictures:
        print("\n".join(map(str, pictures(given.folder, given.pictures))))


if __name__ == "__main__":
    main()
