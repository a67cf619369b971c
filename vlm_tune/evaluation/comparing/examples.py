"""The examples of a comparison with both answers and the tag: chosen, shown, and written for other tools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vlm_tune._console import Shown
from vlm_tune._files import atomic_file
from vlm_tune.errors import EvaluationError, UnknownLabelError
from vlm_tune.evaluation.comparing.wording import slugs, tag_names
from vlm_tune.evaluation.probabilities import has_probabilities, probabilities
from vlm_tune.task import NONE

if TYPE_CHECKING:
    import datasets
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from vlm_tune.evaluation.comparison import Comparison
    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["TaggedExamples", "choose", "tagged"]

_ORDER = ("candidate_only", "reference_only", "both_wrong", "both_right")
_SHOWN = 20


@dataclass(frozen=True, eq=False, repr=False)
class TaggedExamples(Shown):
    """Examples that two systems answered, disagreements first; made by `Comparison.examples`."""

    table: pa.Table
    """A row per example: `example_id`, `truth`, `group`, `image`, `tag`, and for each system, under its name, the
    answer, its `_outcome`, its `_raw` text and its `_confidence` where it has one."""

    def __len__(self) -> int:
        return cast(int, self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.to_batches(max_chunksize=1000):
            yield from batch.to_pylist()

    def __repr__(self) -> str:
        return f"TaggedExamples({len(self)} examples)"

    @property
    def ids(self) -> list[str]:
        """The examples' ids, in order."""
        return cast("list[str]", self.table["example_id"].to_pylist())

    def frame(self) -> pd.DataFrame:
        """Return the table for pandas."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def _rich(self) -> RenderableType:
        """Draw the first twenty: truth, both answers and the tag."""
        from rich.table import Table

        hidden = ("_outcome", "_raw", "_confidence")
        columns = [
            name for name in self.table.column_names if name not in ("group", "image") and not name.endswith(hidden)
        ]
        more = f", the first {_SHOWN} of {len(self)}" if len(self) > _SHOWN else ""
        shown = Table(*columns, title=f"Examples{more}", title_justify="left")
        for row in self.table.slice(0, _SHOWN).to_pylist():
            shown.add_row(*(row[name] or "-" for name in columns))
        return shown

    def save(self, path: Path | str) -> Path:
        """Write the examples as CSV, Parquet or JSON lines, as the ending says.

        Raises:
            EvaluationError: The ending is none of `.csv`, `.parquet`, `.jsonl`.
            StorageError: The disk is full; nothing half-written is left.
        """
        import pyarrow.parquet as pq

        target = Path(path)
        if target.suffix not in (".csv", ".parquet", ".jsonl"):
            raise EvaluationError(f"examples are written as .csv, .parquet or .jsonl, not as {target.name}")
        with atomic_file(target) as temporary:
            if target.suffix == ".csv":
                self.frame().to_csv(temporary, index=False)
            elif target.suffix == ".parquet":
                pq.write_table(self.table, temporary)
            else:
                self.frame().to_json(temporary, orient="records", lines=True, force_ascii=False)
        return target

    def to_hf(self) -> datasets.Dataset:
        """Return the examples as a `datasets.Dataset`; photos that are files come as column `image`."""
        import datasets

        made = datasets.Dataset(self.table)
        return made.cast_column("image", datasets.Image()) if self.table["image"].null_count < len(self) else made


def tagged(comparison: Comparison) -> TaggedExamples:
    """Return all examples that both answered, disagreements first, then by id."""
    import pyarrow as pa

    table = comparison.table.filter(comparison.table["tag"].is_valid())
    tags = np.array(table["tag"].to_pylist(), dtype=object)
    rank = np.array([_ORDER.index(tag) for tag in tags])
    table = table.take(np.lexsort((np.array(table["example_id"].to_pylist(), dtype=str), rank)))
    names = tag_names(comparison.candidate.name, comparison.reference.name)
    columns = {name: table[name] for name in ("example_id", "truth", "group", "image")}
    columns["tag"] = pa.array([names[tag] for tag in table["tag"].to_pylist()])
    sides = {"candidate": comparison.candidate, "reference": comparison.reference}
    for (side, evaluation), slug in zip(
        sides.items(), slugs(comparison.candidate.name, comparison.reference.name), strict=True
    ):
        columns |= {slug: table[f"{side}_label"]}
        columns |= {f"{slug}_{what}": table[f"{side}_{what}"] for what in ("outcome", "raw")}
        if has_probabilities(evaluation):
            columns[f"{slug}_confidence"] = _confidence(evaluation, columns["example_id"])
    return TaggedExamples(pa.table(columns))


def choose(
    comparison: Comparison, *, tag: str | None, truth: str | None, answers: dict[str, str | None]
) -> TaggedExamples:
    """Return the examples with this tag, this truth and these answers of the two sides.

    Raises:
        EvaluationError: There is no such tag.
        UnknownLabelError: There is no such label.
    """
    every = tagged(comparison)
    names = tag_names(comparison.candidate.name, comparison.reference.name)
    wanted = np.ones(len(every), dtype=bool)
    if tag is not None:
        name = dict(names).get(cast(Any, tag), tag)
        if name not in names.values():
            raise EvaluationError(f"there is no tag {tag!r}; there are {', '.join((*names, *names.values()))}")
        wanted &= np.array(every.table["tag"].to_pylist(), dtype=object) == name
    mine, other = slugs(comparison.candidate.name, comparison.reference.name)
    columns = {"truth": truth, mine: answers["candidate"], other: answers["reference"]}
    for column, label in columns.items():
        if label is not None:
            wanted &= _named_by(every.table[column].to_pylist(), label, comparison.candidate)
    return TaggedExamples(every.table.filter(wanted))


def _named_by(labels: list[str | None], label: str, evaluation: Evaluation) -> NDArray[np.bool_]:
    """Return which labels are this one; where several classes may apply, one class finds every list with it."""
    if evaluation.multi_label and (label == NONE or ", " in label):
        return np.array([known == label for known in labels], dtype=bool)
    if label not in evaluation.classes:
        raise UnknownLabelError(label, evaluation.classes)
    if evaluation.multi_label:
        return np.array([label in (known or "").split(", ") for known in labels], dtype=bool)
    return np.array([known == label for known in labels], dtype=bool)


def _confidence(evaluation: Evaluation, ids: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = probabilities(evaluation)
    sure = np.full(evaluation.num_examples, np.nan)
    sure[found.rows] = found.confidence
    places = pc.index_in(ids, value_set=evaluation.table["example_id"].combine_chunks()).to_numpy()
    return pa.array(sure[places], mask=np.isnan(sure[places]))
