"""What one predictor answered on a set of examples, and what that is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

from vlm_tune import _console
from vlm_tune.errors import EvaluationError, UnknownLabelError
from vlm_tune.evaluation.columns import load_table, prediction_of, row_of, save_table, table_of
from vlm_tune.records import Estimate, Example, Outcome, Prediction
from vlm_tune.statistics import mean_of_proportions, wilson
from vlm_tune.task import Task

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

__all__ = ["Evaluation"]

_NO_CLASS, _MISSING = -1, -2
_OUTCOMES: tuple[Outcome, ...] = ("answered", "unparseable", "refused", "failed")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """One predictor's answers on one set of examples; immutable.

    An answer that is no class and a refusal count as wrong. A failure is missing: it is left out of every
    count, and when too many are missing there is no accuracy, only bounds.

    Example:
        >>> truth = {"1.jpg": "dent", "2.jpg": "crack", "3.jpg": "dent"}
        >>> answers = {"1.jpg": "dent", "2.jpg": "dent", "3.jpg": "dent"}
        >>> classes = ["crack", "dent"]
        >>> result = Evaluation.from_answers("a rival", truth=truth, answers=answers, classes=classes)
        >>> print(result.accuracy)
        0.667 [0.208, 0.939] (n=3)
    """

    name: str
    """The predictor's name."""
    classes: tuple[str, ...]
    """The possible answers."""
    table: pa.Table
    """A row per example: id, truth, group, image, outcome, label, scores, raw, latency, cost, tokens."""
    predictor_fingerprint: str = ""
    """The predictor's fingerprint; empty for answers made elsewhere."""
    dataset_fingerprint: str = ""
    """The dataset's fingerprint; empty for answers made elsewhere."""
    task: Task | None = None
    """The question; None for answers made elsewhere."""
    wall_s: float | None = None
    """Time spent asking, over all runs that it took; loading the model included."""
    min_coverage: float = 0.95
    """Share of examples that must not be missing for there to be an accuracy."""

    def __post_init__(self) -> None:
        if not self.table.num_rows:
            raise EvaluationError(f"{self.name}: an evaluation needs at least one example")
        if not 0 <= self.min_coverage <= 1:
            raise EvaluationError(f"min_coverage is a share between 0 and 1, not {self.min_coverage}")

    def __repr__(self) -> str:
        return f"Evaluation({self.name!r}: {self.headline})"

    @classmethod
    def from_answers(
        cls, name: str, *, truth: Mapping[str, str], answers: Mapping[str, str], classes: Sequence[str]
    ) -> Self:
        """Take answers made elsewhere.

        Args:
            name: What reports call their author.
            truth: Example id to its class.
            answers: Example id to the answer; one that is no class counts as wrong, one left out as missing.
            classes: The possible answers.

        Raises:
            EvaluationError: There is an answer for an id that `truth` does not have.
            UnknownLabelError: A truth is not one of the classes.
        """
        if stray := [example_id for example_id in answers if example_id not in truth]:
            raise EvaluationError(f"{name} answered ids that have no truth: {_some(stray)}")

        def rows() -> Iterator[dict[str, Any]]:
            for example_id, label in truth.items():
                if label not in classes:
                    raise UnknownLabelError(label, classes, where=f"truth of {example_id!r}")
                example = Example(id=example_id, image=b"", label=label)
                prediction = _given(example_id, answers.get(example_id), classes)
                yield row_of(example, prediction, classes, content_hash=None)

        return cls(name=name, classes=tuple(classes), table=table_of(rows()))

    @property
    def num_examples(self) -> int:
        """How many examples there were, missing ones included."""
        return cast(int, self.table.num_rows)

    @property
    def example_ids(self) -> list[str]:
        """The examples' ids, in order."""
        return cast("list[str]", self.table["example_id"].to_pylist())

    @cached_property
    def truths(self) -> Mapping[str, str]:
        """Example id to its class."""
        return MappingProxyType(dict(zip(self.example_ids, self.table["truth"].to_pylist(), strict=True)))

    @property
    def predictions(self) -> Iterator[Prediction]:
        """The predictions, in order; made one by one from the columns."""
        for batch in self.table.to_batches(max_chunksize=1000):
            for row in batch.to_pylist():
                yield prediction_of(row, self.classes)

    @cached_property
    def outcomes(self) -> Mapping[Outcome, int]:
        """How many examples had each outcome; all four are there."""
        counts = Counter(self.table["outcome"].to_pylist())
        return MappingProxyType({outcome: counts[outcome] for outcome in _OUTCOMES})

    @property
    def coverage(self) -> float:
        """Share of the examples that are not missing."""
        return 1 - self.outcomes["failed"] / self.num_examples

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers among the examples that are not missing, with its Wilson interval.

        Raises:
            EvaluationError: Less than `min_coverage` is there; `accuracy_bounds` still says what is certain.
        """
        if self.coverage < self.min_coverage:
            low, high = self.accuracy_bounds
            missing = f"{self.outcomes['failed']} of {self.num_examples} examples are missing"
            raise EvaluationError(
                f"{self.name}: {missing}, coverage {self.coverage:.1%} is below {self.min_coverage:.1%}; "
                f"accuracy is between {low:.3f} and {high:.3f}. Run again: only missing examples are asked"
            )
        return wilson(self._num_right, self.num_examples - self.outcomes["failed"])

    @property
    def accuracy_bounds(self) -> tuple[float, float]:
        """Accuracy if every missing example were wrong, and if every one were right."""
        right, missing = self._num_right, self.outcomes["failed"]
        return right / self.num_examples, (right + missing) / self.num_examples

    @property
    def headline(self) -> str:
        """The accuracy in percent with its interval, or its bounds when too much is missing."""
        if self.coverage >= self.min_coverage:
            return f"{self.accuracy.percent()} (n={self.accuracy.n})"
        low, high = self.accuracy_bounds
        return f"between {low:.1%} and {high:.1%}, {self.outcomes['failed']} of {self.num_examples} missing"

    def per_class(self) -> dict[str, Estimate]:
        """Return the recall of each class: the share of its examples that were answered with it."""
        counts = self.confusion()
        return {
            label: wilson(int(counts[index, index]), int(counts[index].sum()))
            for index, label in enumerate(self.classes)
        }

    @property
    def macro_recall(self) -> Estimate:
        """Mean recall over the classes that have examples: every class counts the same.

        Raises:
            EvaluationError: Every example is missing.
        """
        present = [recall for recall in self.per_class().values() if recall.n]
        if not present:
            raise EvaluationError(f"{self.name}: every example is missing")
        return mean_of_proportions(present)

    def confusion(self) -> NDArray[np.int64]:
        """Return counts, C x (C + 1): rows are truths, columns answers, the last column is no class.

        Missing examples are not counted.
        """
        import numpy as np

        truth, answer = self._codes
        size = len(self.classes)
        there = answer != _MISSING
        column = np.where(answer == _NO_CLASS, size, answer)[there]
        flat = np.bincount(truth[there] * (size + 1) + column, minlength=size * (size + 1))
        return flat.reshape(size, size + 1).astype(np.int64)

    @property
    def throughput(self) -> float | None:
        """Examples per second of `wall_s`; None where no time was taken."""
        return (self.num_examples - self.outcomes["failed"]) / self.wall_s if self.wall_s else None

    @cached_property
    def cost_usd(self) -> float | None:
        """Dollars for all answers; None where nothing is paid per answer, or a price is not known."""
        import pyarrow.compute as pc

        unpriced = pc.and_(pc.is_valid(self.table["input_tokens"]), pc.is_null(self.table["cost_usd"]))
        return None if pc.any(unpriced).as_py() else pc.sum(self.table["cost_usd"]).as_py()

    @property
    def model_versions(self) -> tuple[str, ...]:
        """The exact models that answered, as the server named them; more than one: it changed on the way."""
        return tuple(sorted(version for version in self.table["model_version"].unique().to_pylist() if version))

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values; `accuracy` is null when too much is missing."""
        enough = self.coverage >= self.min_coverage
        return {
            "name": self.name,
            "accuracy": self.accuracy.model_dump() if enough else None,
            "accuracy_bounds": list(self.accuracy_bounds),
            "coverage": self.coverage,
            "num_examples": self.num_examples,
            "outcomes": dict(self.outcomes),
            "macro_recall": self.macro_recall.model_dump() if self.coverage else None,
            "per_class": {label: recall.model_dump() for label, recall in self.per_class().items()},
            "classes": list(self.classes),
            "confusion": self.confusion().tolist(),
            "wall_s": self.wall_s,
            "throughput": self.throughput,
            "cost_usd": self.cost_usd,
            "model_versions": list(self.model_versions),
            "fingerprints": {
                "predictor": self.predictor_fingerprint,
                "dataset": self.dataset_fingerprint,
                "task": self.task.fingerprint if self.task else "",
            },
        }

    def frame(self) -> pd.DataFrame:
        """Return the table with a column `right`; missing examples have none."""
        frame: pd.DataFrame = self.table.to_pandas()
        right = (frame["label"] == frame["truth"]).astype("boolean")
        frame["right"] = right.mask(frame["outcome"] == "failed")
        return frame

    def show(self) -> None:
        """Show accuracy, recall per class, and what is missing."""
        from vlm_tune.evaluation.display import evaluation_display

        shown = evaluation_display(self)
        _console.show(shown, html=_console.to_html(shown))

    def plot(self) -> Figure:
        """Draw truths against answers."""
        from vlm_tune import plots

        return plots.confusion(self.confusion(), self.classes, title=self.name)

    def save(self, path: Path | str) -> Path:
        """Write everything to one parquet file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return save_table(path, self.table, kind="evaluation", about=self.about())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a saved evaluation.

        Raises:
            StorageError: The file is missing or is not an evaluation.
        """
        return cls.restore(*load_table(path, kind="evaluation"))

    def about(self) -> dict[str, Any]:
        """Return everything but the table as plain JSON values."""
        return {
            "name": self.name,
            "classes": list(self.classes),
            "predictor_fingerprint": self.predictor_fingerprint,
            "dataset_fingerprint": self.dataset_fingerprint,
            "task": self.task.model_dump(mode="json") if self.task else None,
            "wall_s": self.wall_s,
            "min_coverage": self.min_coverage,
        }

    @classmethod
    def restore(cls, table: pa.Table, about: Mapping[str, Any]) -> Self:
        """Return the evaluation that a table and its `about()` describe."""
        task = Task(**about["task"]) if about["task"] else None
        return cls(table=table, **{**about, "classes": tuple(about["classes"]), "task": task})

    @cached_property
    def _codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Truth and answer of each example as class numbers; -1: no class, -2: missing."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        names = pa.array(self.classes)
        truth, answer = (
            pc.fill_null(pc.index_in(self.table[column], value_set=names), _NO_CLASS).to_numpy()
            for column in ("truth", "label")
        )
        failed = pc.equal(self.table["outcome"], "failed").to_numpy()
        return truth.astype(np.int64), np.where(failed, _MISSING, answer).astype(np.int64)

    @cached_property
    def _num_right(self) -> int:
        truth, answer = self._codes
        return int((truth == answer).sum())


def _given(example_id: str, answer: str | None, classes: Sequence[str]) -> Prediction:
    if answer is None:
        return Prediction(example_id=example_id, outcome="failed", error="no answer was given")
    if answer not in classes:
        reason = "the answer is none of the classes"
        return Prediction(example_id=example_id, outcome="unparseable", raw=answer, error=reason)
    return Prediction(example_id=example_id, outcome="answered", label=answer, raw=answer)


def _some(ids: Sequence[str]) -> str:
    return ", ".join(map(repr, ids[:3])) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
