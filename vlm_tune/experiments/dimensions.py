"""The values that a setting may take in a sweep: one of several, or a number between two."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from vlm_tune.errors import TrainingError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = [
    "Choice",
    "Dimension",
    "LogUniform",
    "Uniform",
    "Value",
    "distribution",
    "extremes",
    "holds",
    "numbers",
    "plain",
    "size",
    "words",
]

Value: TypeAlias = str | int | float
"""A value as a study keeps it: a number or, for a choice, its words."""


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values, in no order: `Choice(16, 64)`.

    Raises:
        TrainingError: There are fewer than two different values.

    Examples:
        >>> Choice(("language",), ("vision", "language")).words
        ('language', 'vision + language')
    """

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)
        if len(set(self.words)) != len(values) or len(values) < 2:
            raise TrainingError(f"a Choice needs two or more different values, got {values!r}")

    @property
    def words(self) -> tuple[str, ...]:
        """What a table calls each value."""
        return tuple(words(value) for value in self.values)


@dataclass(frozen=True)
class Uniform:
    """Any number between two, both included; in steps, if one is given.

    Attributes:
        low: The smallest.
        high: The largest.
        step: Distance between neighbours; None takes any number, or any whole one where the setting is a count.

    Raises:
        TrainingError: The ends are not finite or the wrong way round, or the step does not divide their distance.

    Examples:
        >>> Uniform(1, 4, step=1)
        Uniform(low=1, high=4, step=1)
    """

    low: float
    high: float
    step: float | None = None

    def __post_init__(self) -> None:
        _check_ends(self, self.low, self.high)
        if self.step is not None:
            steps = (self.high - self.low) / self.step if self.step > 0 else 0.5
            if abs(steps - round(steps)) > 1e-9:
                raise TrainingError(f"{self}: steps from low must arrive at high")


@dataclass(frozen=True)
class LogUniform:
    """Any number between two, both included, with as many tries from 1e-5 to 1e-4 as from 1e-4 to 1e-3.

    Attributes:
        low: The smallest, above 0.
        high: The largest.

    Raises:
        TrainingError: The ends are not finite, not above 0, or the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_ends(self, self.low, self.high)
        if self.low <= 0:
            raise TrainingError(f"{self}: a logarithmic scale starts above 0")


Dimension: TypeAlias = Choice | Uniform | LogUniform


def words(value: Any) -> str:
    """Return a value in the fewest words that tell it from others."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, BaseModel):
        said = value.model_dump(exclude_defaults=True)
        return ", ".join(f"{name} {words(inner)}" for name, inner in said.items()) or "default"
    if isinstance(value, tuple | list):
        return " + ".join(map(words, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(inner)}" for name, inner in value.items())
    return str(value)


def numbers(dimension: Dimension) -> list[float]:
    """Return the numbers that a dimension is given by; none of a choice."""
    if isinstance(dimension, Choice):
        return []
    step = dimension.step if isinstance(dimension, Uniform) else None
    return [dimension.low, dimension.high, *([] if step is None else [step])]


def extremes(dimension: Dimension) -> tuple[Any, ...]:
    """Return the values of a choice, or the ends of a range: if these are possible, all are."""
    return dimension.values if isinstance(dimension, Choice) else (dimension.low, dimension.high)


def holds(dimension: Dimension, value: Any) -> bool:
    """Return whether a value, as a study keeps it, is one of a dimension's."""
    if isinstance(dimension, Choice):
        return value in dimension.words
    step = dimension.step if isinstance(dimension, Uniform) else None
    steps = (value - dimension.low) / step if step else 0.0
    return bool(dimension.low <= value <= dimension.high and abs(steps - round(steps)) < 1e-9)


def size(dimension: Dimension, *, whole: bool) -> float:
    """Return how many values there are; infinite where a number may be anything."""
    if isinstance(dimension, Choice):
        return len(dimension.values)
    step = dimension.step if isinstance(dimension, Uniform) else None
    if step is None and not whole:
        return math.inf
    return round((dimension.high - dimension.low) / (step or 1)) + 1


def distribution(dimension: Dimension, *, whole: bool) -> BaseDistribution:
    """Return a dimension in Optuna's words."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.words)
    log = isinstance(dimension, LogUniform)
    step = dimension.step if isinstance(dimension, Uniform) else None
    if whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=log, step=int(step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=log, step=step)


def plain(dimension: Dimension) -> list[Any]:
    """Return a dimension as plain JSON: a choice by all that its values say, and not by their words alone."""
    if isinstance(dimension, Choice):
        values = [
            value.model_dump(mode="json") if isinstance(value, BaseModel) else value for value in dimension.values
        ]
        return ["choice", *values]
    return [type(dimension).__name__, *numbers(dimension)]


def _check_ends(dimension: object, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise TrainingError(f"{dimension}: low must be less than high, and both finite")
