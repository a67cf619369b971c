"""What one predictor answered on a set of examples, and what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, cast

from vlm_tune._console import Shown
from vlm_tune.evaluation.columns import load_table, prediction_of, save_table, table_of
from vlm_tune.evaluation.elsewhere import Named, given_rows
from vlm_tune.evaluation.measured import Measured
from vlm_tune.records import Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["Evaluation"]


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Shown, Measured):
    """One predictor's answers on one set of examples; immutable.

    An answer that is no class and a refusal count as wrong. A failure is missing: it is left out of every
    count, and when too many are missing there is no accuracy, only bounds. Where several classes may apply, an
    answer is right when it names them all and no other, so that the accuracy is the exact match.

    Examples:
        >>> truth = {"1.jpg": "dent", "2.jpg": "crack", "3.jpg": "dent"}
        >>> answers = {"1.jpg": "dent", "2.jpg": "dent", "3.jpg": "dent"}
        >>> classes = ["crack", "dent"]
        >>> result = Evaluation.from_answers("a rival", truth=truth, answers=answers, classes=classes)
        >>> print(result.accuracy)
        0.667 [0.208, 0.939] (n=3)
    """

    def __repr__(self) -> str:
        return f"Evaluation({self.name!r}: {self.headline})"

    @classmethod
    def from_answers(
        cls,
        name: str,
        *,
        truth: Mapping[str, Named],
        answers: Mapping[str, Named],
        classes: Sequence[str],
        multi_label: bool = False,
    ) -> Self:
        """Take answers made elsewhere.

        Args:
            name: What reports call their author.
            truth: Example id to its class.
            answers: Example id to the answer; one that is no class counts as wrong, one left out as missing.
            classes: The possible answers.
            multi_label: Whether truths and answers are lists of classes: texts such as `crack, dent` or `none`,
                or the class names one by one, in any order.

        Raises:
            EvaluationError: There is an answer for an id that `truth` does not have, or a list of classes where
                one class is expected.
            UnknownLabelError: A truth is not one of the classes.
            TaskError: There are fewer than two classes, or they do not differ.

        Examples:
            >>> result = Evaluation.from_answers("a rival", truth={"1.jpg": ["crack", "dent"], "2.jpg": []},
            ...     answers={"1.jpg": "dent, crack", "2.jpg": "dent"}, classes=["crack", "dent"], multi_label=True)
            >>> result.accuracy.value, result.micro_f1.value
            (0.5, 0.8)
        """
        task = Task(prompt="?", classes=tuple(classes), multi_label=multi_label)
        rows = given_rows(name, task, truth, answers)
        return cls(name=name, classes=task.classes, table=table_of(rows), multi_label=multi_label)

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
        macro_recall = self.macro_recall if any(recall.n for recall in self.per_class().values()) else None
        return {
            "name": self.name,
            "accuracy": self.accuracy.model_dump() if enough else None,
            "accuracy_bounds": list(self.accuracy_bounds),
            "coverage": self.coverage,
            "num_examples": self.num_examples,
            "outcomes": dict(self.outcomes),
            "macro_recall": macro_recall.model_dump() if macro_recall else None,
            "macro_f1": self.macro_f1.model_dump(),
            "micro_f1": self.micro_f1.model_dump(),
            "per_class": {label: recall.model_dump() for label, recall in self.per_class().items()},
            "class_scores": {label: scores.model_dump() for label, scores in self.class_scores().items()},
            "classes": list(self.classes),
            "multi_label": self.multi_label,
            "confusion": None if self.multi_label else self.confusion().tolist(),
            "class_counts": self.class_counts().tolist(),
            "wall_s": self.wall_s,
            "throughput": self.throughput,
            "cost_usd": self.cost_usd,
            "possibly_billed": self.possibly_billed,
            "prompt_note": self.prompt_note,
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

    def _rich(self) -> RenderableType:
        """Draw the accuracy, how well each class is found, and what is missing."""
        from vlm_tune.evaluation.display import evaluation_display

        return evaluation_display(self)

    def plot(self) -> Figure:
        """Draw truths against answers; where several classes may apply, how well each is found."""
        from vlm_tune import plots

        if self.multi_label:
            title = f"{self.name}: {self.measure} {self.headline}, F1 of each class"
            return plots.class_scores(list(self.class_scores().items()), title=title)
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
            "multi_label": self.multi_label,
            "prompt_note": self.prompt_note,
            "possibly_billed": self.possibly_billed,
        }

    @classmethod
    def restore(cls, table: pa.Table, about: Mapping[str, Any]) -> Self:
        """Return the evaluation that a table and its `about()` describe."""
        task = Task(**about["task"]) if about["task"] else None
        return cls(table=table, **{**about, "classes": tuple(about["classes"]), "task": task})
