"""A sweep shown in a terminal or a notebook, and laid out for a picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vlm_tune.experiments.dimensions import Value
from vlm_tune.experiments.space import Axis
from vlm_tune.experiments.study import best_of
from vlm_tune.experiments.trials import Trial, said
from vlm_tune.plots.sweeps import Coordinate, Line

if TYPE_CHECKING:
    from rich.console import Group

    from vlm_tune.experiments.sweep_result import SweepResult

__all__ = ["GIVEN_UP", "SCALES", "columns_of", "lines_of", "row_of", "sweep_display"]

_OWN = ("r", "lora_alpha", "use_rslora", "epochs")
"""Settings that have columns of their own, whether they were searched or not."""

SCALES = "* marks the scale in force: alpha/√r with use_rslora, else alpha/r."
GIVEN_UP = "Epochs such as 1 of 4: given up."

_JITTER = 0.012
"""Trials with the same choice stand so far apart."""


def sweep_display(result: SweepResult) -> Group:
    """Return a row for each trial, the best first, and what is established below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"Sweep of {result.model}, judged on {result.held_out}, 95 % intervals",
        title_justify="left",
        caption=SCALES,
        caption_justify="left",
    )
    names = ("trial", "accuracy", "alpha/r", "alpha/√r", "time", *(["cost"] if _paid(result) else []))
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("settings")
    best = best_of(result.trials)
    for trial in ranked(result.trials):
        style = "bold" if best is not None and trial.number == best.number else ""
        cells = dict(zip(columns_of(result), row_of(result, trial), strict=True))
        cells["trial"] = str(trial.number)
        table.add_row(*(Text(cells[name]) for name in names), Text(_settings(trial)), style=style)
    failures = [trial.sentence for trial in result.trials if trial.state == "failed"]
    return Group(table, *map(Text, [*failures, result.sentence]))


def columns_of(result: SweepResult) -> list[str]:
    """Return what the columns of the table are called."""
    others = [axis.name for axis in result.axes if axis.name not in _OWN]
    paid = ["cost"] if _paid(result) else []
    return ["trial", "accuracy", "r", "alpha", "alpha/r", "alpha/√r", *others, "epochs", "time", *paid]


def row_of(result: SweepResult, trial: Trial) -> list[str]:
    """Return a trial's cells."""
    config = trial.config
    others = [_value(trial.values[axis.name]) for axis in result.axes if axis.name not in _OWN]
    by_r, by_root = config.lora_alpha / config.r, config.lora_alpha / math.sqrt(config.r)
    accuracy = trial.accuracy.percent() if trial.accuracy else "failed"
    done = trial.after_epochs[-1][0] if trial.after_epochs else 0.0
    return [
        f"{trial.number}, start" if trial.is_start else str(trial.number),
        accuracy,
        str(config.r),
        f"{config.lora_alpha:.3g}",
        f"{by_r:.3g}" + ("" if config.use_rslora else "*"),
        f"{by_root:.3g}" + ("*" if config.use_rslora else ""),
        *others,
        f"{done:.3g} of {config.epochs:.3g}" if trial.state == "pruned" else f"{done:.3g}",
        "-" if trial.seconds is None else f"{trial.seconds:.3g} s",
        *([str(trial.cost) if trial.cost else "-"] if _paid(result) else []),
    ]


def ranked(trials: tuple[Trial, ...]) -> list[Trial]:
    """Return the finished trials, the most accurate first, then those given up and those that failed."""
    states = ("finished", "pruned", "failed")

    def place(trial: Trial) -> tuple[int, float, int]:
        return states.index(trial.state), -(trial.accuracy.value if trial.accuracy else 0.0), trial.number

    return sorted(trials, key=place)


def lines_of(result: SweepResult) -> tuple[list[Coordinate], list[Line]]:
    """Return the axes and lines of the picture of all trials."""
    best = best_of(result.trials)
    lines = []
    for trial in result.trials:
        is_best = best is not None and trial.number == best.number
        label = f"winner: trial {trial.number}" if is_best else "starting configuration" if trial.is_start else ""
        heights = [_height(axis, trial.values[axis.name]) for axis in result.axes]
        apart = [_JITTER * ((trial.number % 5) - 2) if axis.scale == "choice" else 0.0 for axis in result.axes]
        lines.append(
            Line(
                [height + shift for height, shift in zip(heights, apart, strict=True)],
                trial.accuracy.value if trial.accuracy else None,
                pruned=trial.state == "pruned",
                label=label,
                dashed=not is_best,
            )
        )
    return [Coordinate(axis.name, _ticks(axis)) for axis in result.axes], lines


def _settings(trial: Trial) -> str:
    start = "start: " if trial.is_start else ""
    return f"{start}{said(trial.values)}" + (f"; given up {trial.reason}" if trial.state == "pruned" else "")


def _paid(result: SweepResult) -> bool:
    return any(trial.cost for trial in result.trials)


def _ticks(axis: Axis) -> list[tuple[float, str]]:
    if axis.low is None or axis.high is None:
        return [(_height(axis, choice), choice) for choice in axis.choices]
    middle = math.sqrt(axis.low * axis.high) if axis.scale == "log" else (axis.low + axis.high) / 2
    return [(height, f"{value:.3g}") for height, value in ((0.0, axis.low), (0.5, middle), (1.0, axis.high))]


def _height(axis: Axis, value: Value) -> float:
    if axis.low is None or axis.high is None:
        return axis.choices.index(str(value)) / (len(axis.choices) - 1)
    value = float(value)
    if axis.scale == "log":
        return math.log(value / axis.low) / math.log(axis.high / axis.low)
    return (value - axis.low) / (axis.high - axis.low)


def _value(value: Value) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"
