"""Whether a served model answers like the local one it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from vlm_tune._console import Shown
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator
from vlm_tune.evaluation.pairing import pair
from vlm_tune.evaluation.sides import load_sides, save_sides
from vlm_tune.predictors import Predictor
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import wilson

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from rich.console import RenderableType

__all__ = ["Difference", "ServingParity", "serving_parity"]

_SHOWN = 20


class Difference(Record):
    """An example that the two sides answer differently."""

    example_id: str
    """The example."""
    truth: str
    """Its class."""
    local: str
    """The local answer; where there is none, the outcome."""
    served: str
    """The served answer; where there is none, the outcome."""
    lead: float | None
    """Probability of the local answer less that of the next class; None where the local side has no scores, and
    for multi-label tasks. A small lead is a near tie, which rounding can turn over; a large one is not."""
    score_gap: float | None
    """Largest difference of a class's probability between the sides; None unless both have scores."""


@dataclass(frozen=True, eq=False, repr=False)
class ServingParity(Shown):
    """The same examples answered by a local model and by the model as it is served; immutable.

    Args:
        local: The local model's answers.
        served: The served model's answers.

    Raises:
        EvaluationError: The two were not asked about the same images and classes, or have no answered example in
            common.

    Examples:
        >>> truth = {f"{at}": "dent" for at in range(50)}
        >>> local = Evaluation.from_answers("local", truth=truth, answers=truth, classes=["crack", "dent"])
        >>> changed = truth | {"7": "crack"}
        >>> served = Evaluation.from_answers("served", truth=truth, answers=changed, classes=["crack", "dent"])
        >>> parity = ServingParity(local=local, served=served)
        >>> print(parity.agreement)
        0.980 [0.895, 0.996] (n=50)
        >>> [one.example_id for one in parity.differences]
        ['7']
    """

    local: Evaluation
    served: Evaluation

    def __post_init__(self) -> None:
        if not self.agreement.n:
            raise EvaluationError(
                f"{self.local.name} and {self.served.name} have no answered example in common; run both again"
            )

    def __repr__(self) -> str:
        return f"ServingParity({self.served.name!r} beside {self.local.name!r}: {self.agreement})"

    @cached_property
    def table(self) -> pa.Table:
        """A row per example: id, truth, group, image, then outcome, label and raw answer of both sides.

        `same` is null where a side failed; `lead` and `score_gap` are as in `Difference`.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        paired = pair(self.served, self.local).drop_columns("tag")
        names = {"candidate": "served", "reference": "local"}
        paired = paired.rename_columns([_renamed(name, names) for name in paired.column_names])
        same = pc.and_(
            pc.equal(paired["served_outcome"], paired["local_outcome"]),
            pc.fill_null(pc.equal(paired["served_label"], paired["local_label"]), True),
        ).to_numpy()
        failed = pc.or_(*(pc.equal(paired[f"{side}_outcome"], "failed") for side in names.values())).to_numpy()
        local, served = (_chances(side, paired["example_id"], self.served.classes) for side in self._sides.values())
        best = np.sort(local, axis=1)
        lead = np.full(len(best), np.nan) if self.local.multi_label else best[:, -1] - best[:, -2]
        columns = {"lead": lead, "score_gap": np.abs(served - local).max(axis=1)}
        paired = paired.append_column("same", pa.array(same, mask=failed))
        for name, values in columns.items():
            paired = paired.append_column(name, pa.array(values, mask=np.isnan(values)))
        return paired

    @property
    def _sides(self) -> Mapping[str, Evaluation]:
        return {"local": self.local, "served": self.served}

    @cached_property
    def agreement(self) -> Estimate:
        """Share of the examples answered alike, with a Wilson interval.

        Two refusals are alike, and so are two answers that are no class. Examples that a side failed on are left
        out.
        """
        import pyarrow.compute as pc

        same = self.table["same"]
        return wilson(pc.sum(same).as_py() or 0, len(same) - same.null_count)

    @cached_property
    def differences(self) -> tuple[Difference, ...]:
        """The examples answered differently, in their order."""
        import pyarrow.compute as pc

        rows = self.table.filter(pc.equal(self.table["same"], False)).to_pylist()
        return tuple(
            Difference(
                example_id=row["example_id"],
                truth=row["truth"],
                local=row["local_label"] or row["local_outcome"],
                served=row["served_label"] or row["served_outcome"],
                lead=row["lead"],
                score_gap=row["score_gap"],
            )
            for row in rows
        )

    @property
    def n_missing(self) -> int:
        """Examples left out, because a side failed on them."""
        return cast(int, self.table["same"].null_count)

    @cached_property
    def largest_gap(self) -> float | None:
        """Largest difference of a class's probability on any example; None unless both sides have scores."""
        import pyarrow.compute as pc

        gap: float | None = pc.max(self.table["score_gap"]).as_py()
        return gap

    @property
    def sentence(self) -> str:
        """The result in words."""
        n, different = self.agreement.n, len(self.differences)
        parts = [
            f"{self.served.name} (served) answers like {self.local.name} (local) on {n - different} of {n} examples: "
            f"{self.agreement.percent()}."
        ]
        if self.n_missing:
            parts.append(f"{self.n_missing} examples are left out: a side failed on them.")
        if self.largest_gap is not None:
            parts.append(f"No class's probability differs by more than {self.largest_gap:.3f}.")
        leads = [one.lead for one in self.differences if one.lead is not None]
        if leads:
            parts.append(f"Where they differ, the local answer leads the next by up to {max(leads):.3f}.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "local": self.local.name,
            "served": self.served.name,
            "agreement": self.agreement.model_dump(),
            "n_missing": self.n_missing,
            "largest_gap": self.largest_gap,
            "differences": [one.model_dump() for one in self.differences],
            "sentence": self.sentence,
        }

    def frame(self) -> pd.DataFrame:
        """Return `table` as pandas."""
        frame: pd.DataFrame = self.table.to_pandas()
        return frame

    def _rich(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        if not self.differences:
            return Group(Text(self.sentence))
        table = Table("example", "truth", "local", "served", title="Answered differently", title_justify="left")
        for column in ("local lead", "score gap"):
            table.add_column(column, justify="right")
        for one in self.differences[:_SHOWN]:
            numbers = ("-" if value is None else f"{value:.3f}" for value in (one.lead, one.score_gap))
            table.add_row(*map(Text, (one.example_id, one.truth, one.local, one.served)), *numbers)
        more = len(self.differences) - _SHOWN
        return Group(table, *([Text(f"and {more} more")] if more > 0 else []), Text(self.sentence))

    def save(self, path: Path | str) -> Path:
        """Write everything, both evaluations included, to one parquet file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        return save_sides(path, self._sides, kind="serving parity", about={})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            StorageError: The file is missing or is no serving parity.
        """
        sides, _ = load_sides(path, ("local", "served"), kind="serving parity")
        return cls(**sides)


def serving_parity(
    local: Predictor, served: Predictor, examples: Dataset, *, run_dir: Path | str | None = None
) -> ServingParity:
    """Ask a model and its served self about the same examples, and compare the answers.

    A merged model that is served by another engine, in another precision or behind another chat template may answer
    differently. Accuracy alone hides that: two models of equal accuracy can disagree on many photos.

    Args:
        local: The model on this machine, usually what `Adapter.merge` returned.
        served: The same model behind a server, usually an `OpenAICompatible`.
        examples: What to ask about, usually `data.test`.
        run_dir: Where answers are kept, as in `Evaluator`; those that are there already are not asked again.

    Raises:
        EvaluationError: A side answered nothing.
        VlmTuneError: What a predictor raises when its set-up is broken.

    Examples:
        >>> from vlm_tune.predictors import Baseline
        >>> from vlm_tune.testing import tiny_dataset
        >>> data = tiny_dataset(8)
        >>> floor = Baseline.majority(data.train)
        >>> serving_parity(floor, floor, data.test).agreement.value
        1.0
    """
    evaluator = Evaluator(examples, run_dir=run_dir)
    return ServingParity(local=evaluator.run(local), served=evaluator.run(served))


def _renamed(column: str, names: Mapping[str, str]) -> str:
    side, _, rest = column.partition("_")
    return f"{names[side]}_{rest}" if side in names else column


def _chances(evaluation: Evaluation, ids: pa.ChunkedArray, classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return n x C probabilities in the order of these ids and classes; rows without scores are not numbers."""
    import numpy as np
    import pyarrow.compute as pc

    table = evaluation.table
    scores = table["scores"].take(pc.index_in(ids, value_set=table["example_id"].combine_chunks())).combine_chunks()
    there = scores.is_valid().to_numpy(zero_copy_only=False)
    chances = np.full((len(scores), len(classes)), np.nan)
    if there.any():
        given = scores.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(classes))
        chances[there] = np.exp(given[:, [evaluation.classes.index(label) for label in classes]])
    return chances
