"""What a sweep searches: settings by name, each with the values it may take, refused before anything loads."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from vlm_tune.errors import TaskError, TrainingError, nearest
from vlm_tune.experiments.dimensions import (
    Choice,
    Dimension,
    LogUniform,
    Uniform,
    Value,
    distribution,
    extremes,
    holds,
    numbers,
    plain,
    size,
    words,
)
from vlm_tune.records import Record
from vlm_tune.task import Task
from vlm_tune.training.config import TrainConfig

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Axis", "Setting", "Space", "check_space"]

_WHOLE = ("r", "batch_size", "max_pixels")
_REAL = (
    "lora_alpha",
    "learning_rate",
    "epochs",
    "lora_dropout",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing",
)
_KINDS = ("regions", "kinds", "augment", "use_rslora", "use_dora", "lr_scheduler", "sampling", "class_weights")
_SEARCHED = (*_WHOLE, *_REAL, *_KINDS)

_NOT_SEARCHED = {
    "seed": "another seed is other luck and no better setting; SweepResult.confirm trains with several",
    "keep": "it decides how trials are judged; set it in the starting configuration",
    "patience": "it decides how trials are judged; set it in the starting configuration",
    "modules_to_save": "it goes with the regions; set it in the starting configuration",
    "region_learning_rates": "it goes with the regions; set it in the starting configuration",
    **dict.fromkeys(
        ("micro_batch_size", "gradient_checkpointing", "fast", "save_every", "report_to"),
        "it does not change what is trained",
    ),
}


class Axis(Record):
    """What one setting could be, for tables and pictures."""

    name: str
    """The setting."""
    scale: Literal["choice", "linear", "log"]
    """How its values are ordered."""
    choices: tuple[str, ...] = ()
    """The values of a choice, in words."""
    low: float | None = None
    """The smallest number; None of a choice."""
    high: float | None = None
    """The largest number; None of a choice."""


class Setting(Record):
    """Everything that a trial is trained with."""

    config: TrainConfig
    """The configuration."""
    max_pixels: int
    """The task's image budget."""


class Space:
    """Settings by name, each with the values it may take.

    Args:
        dimensions: Setting to its values.
        start: What the settings that are not searched are.
        task: The question; its image budget is `max_pixels`.

    Raises:
        TrainingError: There is none, one cannot be searched, or a value is impossible.
    """

    def __init__(self, dimensions: Mapping[str, Dimension], start: TrainConfig, task: Task) -> None:
        self.dimensions = dict(dimensions)
        self.start = Setting(config=start, max_pixels=task.max_pixels)
        self._task = task
        for name, dimension in self.dimensions.items():
            for value in extremes(dimension):
                self._check(name, value)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """What each setting could be."""
        return tuple(_axis(name, dimension) for name, dimension in self.dimensions.items())

    @property
    def written(self) -> str:
        """The space as JSON: the same for the same space."""
        return json.dumps({name: plain(dimension) for name, dimension in sorted(self.dimensions.items())})

    @property
    def num_points(self) -> float:
        """How many different settings there are; infinite where a number may be anything."""
        return math.prod(size(dimension, whole=name in _WHOLE) for name, dimension in self.dimensions.items())

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the space in Optuna's words."""
        return {name: distribution(dimension, whole=name in _WHOLE) for name, dimension in self.dimensions.items()}

    def setting(self, values: Mapping[str, Value]) -> Setting:
        """Return the starting configuration with some values in their places."""
        real = {name: self._real(name, value) for name, value in values.items()}
        max_pixels = real.pop("max_pixels", self.start.max_pixels)
        # Around model_copy, which checks nothing; what a field is made of stays as it is.
        given = {name: getattr(self.start.config, name) for name in TrainConfig.model_fields}
        return Setting(config=TrainConfig(**{**given, **real}), max_pixels=max_pixels)

    def settings(self) -> list[Setting]:
        """Return the starting configuration with each choice of parts of the model, for these to be looked for."""
        words = [
            [(axis.name, word) for word in axis.choices] for axis in self.axes if axis.name in ("regions", "kinds")
        ]
        return [self.setting(dict(chosen)) for chosen in itertools.product(*words)]

    def place_of_start(self) -> dict[str, Value] | None:
        """Return the values of the starting configuration; None where it lies outside of the space."""
        place: dict[str, Value] = {}
        for name, dimension in self.dimensions.items():
            value = self.start.max_pixels if name == "max_pixels" else getattr(self.start.config, name)
            if isinstance(dimension, Choice):
                value = words(value)
            if not holds(dimension, value):
                return None
            place[name] = value
        return place

    def _real(self, name: str, value: Value) -> Any:
        dimension = self.dimensions[name]
        if isinstance(dimension, Choice):
            return dimension.values[dimension.words.index(str(value))]
        return value

    def _check(self, name: str, value: Any) -> None:
        given = {field: getattr(self.start.config, field) for field in TrainConfig.model_fields}
        try:
            if name == "max_pixels":
                Task(**{**self._task.model_dump(), "max_pixels": value})
            else:
                TrainConfig(**{**given, name: value})
        except (TrainingError, TaskError) as error:
            raise TrainingError(f"Sweep: {name} cannot be {value!r}: {error}") from error


def check_space(dimensions: Mapping[str, Dimension]) -> None:
    """Refuse a space whose settings cannot be searched, whatever their values.

    Raises:
        TrainingError: There is none, a name is unknown, or a setting is given values of the wrong kind.
    """
    if not dimensions:
        raise TrainingError(f"Sweep: the space is empty; it may hold {', '.join(_SEARCHED)}")
    for name, dimension in dimensions.items():
        if name in _NOT_SEARCHED:
            raise TrainingError(f"Sweep: {name} is not searched: {_NOT_SEARCHED[name]}")
        if name not in _SEARCHED:
            close = nearest(name, _SEARCHED)
            hint = f"did you mean {' or '.join(close)}?" if close else f"it may hold {', '.join(_SEARCHED)}"
            raise TrainingError(f"Sweep: there is no setting {name!r} to search; {hint}")
        if not isinstance(dimension, Choice | Uniform | LogUniform):
            raise TrainingError(f"Sweep: {name} needs a Choice, Uniform or LogUniform, got {dimension!r}")
        if name in _KINDS and not isinstance(dimension, Choice):
            raise TrainingError(f"Sweep: {name} is no number; give a Choice of its values")
        if name in _WHOLE and any(value != int(value) for value in numbers(dimension)):
            raise TrainingError(f"Sweep: {name} is a whole number, unlike {dimension}")


def _axis(name: str, dimension: Dimension) -> Axis:
    if isinstance(dimension, Choice):
        return Axis(name=name, scale="choice", choices=dimension.words)
    scale: Literal["linear", "log"] = "log" if isinstance(dimension, LogUniform) else "linear"
    return Axis(name=name, scale=scale, low=dimension.low, high=dimension.high)
