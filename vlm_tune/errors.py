"""Everything vlm-tune raises on purpose, under one root.

VlmTuneError
├── TaskError            the question is malformed
│   └── UnknownLabelError    a label is not one of the task's classes
├── DataError            the dataset cannot be used as it is
│   ├── ImageError           one image cannot be read
│   └── SplitError           a split is missing, empty or impossible
├── ModelError           a model cannot be loaded or does not fit the request
│   ├── AdapterError         the adapter does not touch what was asked for, or belongs to another base
│   └── EmbeddingError       an embedder's vectors cannot be compared
├── TrainingError        training cannot start or went wrong
│   ├── LabelAuditError      the trained tokens are not exactly the answer
│   ├── OverfitError         ten examples cannot be learnt by heart
│   └── StoppedError         the process was asked to end; the same call goes on
├── MergeError           the merged model is not provably the adapter
├── PredictorError       an answer could not be obtained
│   └── BudgetError          the next call could cost more than is allowed
├── EvaluationError      evaluations do not fit together, or cover too little
│   └── ForecastError        a learning curve does not say that much
├── StorageError         a file cannot be written, or what is on disk is not ours
├── BackendError         there is no cluster, no room on it, or work that cannot be sent there
├── RecipeError          a recipe file is malformed
└── MissingExtraError    an optional package is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "AdapterError",
    "BackendError",
    "BudgetError",
    "DataError",
    "EmbeddingError",
    "EvaluationError",
    "ForecastError",
    "ImageError",
    "LabelAuditError",
    "MergeError",
    "MissingExtraError",
    "ModelError",
    "OverfitError",
    "PredictorError",
    "RecipeError",
    "SplitError",
    "StoppedError",
    "StorageError",
    "TaskError",
    "TrainingError",
    "UnknownLabelError",
    "VlmTuneError",
    "nearest",
]


class VlmTuneError(Exception):
    """The root: catch this to catch every error the library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        # By its words, and not by what it was made of: it may come from another process.
        return _again, (type(self), self.args), vars(self)


class TaskError(VlmTuneError):
    """The task (prompt, classes, image budget) is malformed."""


class UnknownLabelError(TaskError):
    """A label is not one of the task's classes.

    Attributes:
        label: The label as it was given.
        nearest: The closest class names, best first.
    """

    def __init__(self, label: str, classes: Iterable[str], *, where: str = "") -> None:
        known = tuple(classes)
        self.label = label
        self.nearest = nearest(label, known)
        place = f"{where}: " if where else ""
        hint = f"; did you mean {' or '.join(map(repr, self.nearest))}?" if self.nearest else ""
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        super().__init__(f"{place}label {label!r} is not one of the classes ({shown}){hint}")


class DataError(VlmTuneError):
    """The dataset cannot be used as it is."""


class ImageError(DataError):
    """One image cannot be read.

    Attributes:
        image: The path, or a name for image bytes.
        reason: What is wrong with it.
    """

    def __init__(self, image: Path | str, reason: str) -> None:
        self.image = image
        self.reason = reason
        super().__init__(f"cannot read image {image}: {reason}")


class SplitError(DataError):
    """A split is missing, empty or impossible."""


class ModelError(VlmTuneError):
    """A model cannot be loaded or does not fit the request."""


class AdapterError(ModelError):
    """The adapter does not touch what was asked for, or belongs to another base model."""


class EmbeddingError(ModelError):
    """An embedder's vectors cannot be compared: their shape, their norm, or not even numbers."""


class TrainingError(VlmTuneError):
    """Training cannot start, or went wrong."""


class LabelAuditError(TrainingError):
    """The tokens that would be trained are not exactly the answer and the end of turn."""


class OverfitError(TrainingError):
    """The model could not learn a handful of examples by heart."""


class StoppedError(TrainingError):
    """The process was asked to end (SIGTERM) while it trained: a checkpoint is written, and the same call goes on.

    Attributes:
        step: Optimizer steps that are done.
        num_steps: Optimizer steps of the whole training.
    """

    def __init__(self, *, step: int, num_steps: int, checkpoints: Path) -> None:
        self.step = step
        self.num_steps = num_steps
        super().__init__(
            f"training was asked to end after step {step} of {num_steps}; run the same again to go on from the "
            f"checkpoint in {checkpoints}"
        )


class MergeError(VlmTuneError):
    """The merged model is not provably equal to the adapter on its base."""


class PredictorError(VlmTuneError):
    """An answer could not be obtained from a predictor."""


class BudgetError(PredictorError):
    """The next call could cost more than is allowed.

    Attributes:
        spent_usd: Dollars paid so far.
        num_left: Examples that have no answer yet.
    """

    def __init__(self, message: str, *, spent_usd: float, num_left: int) -> None:
        self.spent_usd = spent_usd
        self.num_left = num_left
        super().__init__(message)


class EvaluationError(VlmTuneError):
    """Evaluations do not fit together, or cover too little to say anything."""


class ForecastError(EvaluationError):
    """A learning curve does not say that much: too few sizes or seeds, or asked too far beyond them.

    Attributes:
        limit: The largest number of training images that it tells of; None where it tells of none.
    """

    def __init__(self, message: str, *, limit: int | None = None) -> None:
        self.limit = limit
        super().__init__(message)


class StorageError(VlmTuneError):
    """A file cannot be written, or what is on disk is not what it should be."""


class BackendError(VlmTuneError):
    """There is no cluster, it has no room for the work, or the work cannot be sent there."""


class RecipeError(VlmTuneError):
    """A recipe file is malformed."""


class MissingExtraError(VlmTuneError):
    """An optional package is not installed.

    Attributes:
        package: The package that is missing.
        install: The command that installs it.
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package = package
        self.install = f'pip install "vlm-tune[{extra}]"'
        super().__init__(f"{purpose} needs {package}, which is not installed; run: {self.install}")


def _again(kind: type[VlmTuneError], words: tuple[object, ...]) -> VlmTuneError:
    return kind.__new__(kind, *words)


def nearest(name: str, known: Iterable[str], *, limit: int = 3) -> tuple[str, ...]:
    """Return the known names that look most like `name`, best first.

    Case and surrounding spaces are ignored, since they are the usual slip.

    Examples:
        >>> nearest("Scrach ", ["crack", "dent", "scratch"])
        ('scratch', 'crack')
    """
    folded = {known_name.casefold().strip(): known_name for known_name in known}
    matches = difflib.get_close_matches(name.casefold().strip(), folded, n=limit, cutoff=0.6)
    return tuple(folded[match] for match in matches)
