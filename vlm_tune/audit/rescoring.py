"""All systems before and after labels were put right, and what that does to the verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from vlm_tune._console import Shown
from vlm_tune.audit.rulings import Rulings
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.evaluation.sides import load_sides, save_sides

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

    from vlm_tune.audit.audit import LabelAudit

__all__ = ["Change", "Rescored"]


@dataclass(frozen=True)
class Change:
    """Two systems compared under the labels as they were, and as they were ruled.

    Attributes:
        before: The comparison under the old labels.
        after: The comparison under the new ones.
    """

    before: Comparison
    after: Comparison

    @property
    def changed(self) -> bool:
        """Whether the verdict is another one."""
        return self.before.verdict != self.after.verdict

    @property
    def sentence(self) -> str:
        """What became of the verdict, in words."""
        pair = f"{self.before.candidate.name} against {self.before.reference.name}"
        old, new = (one.verdict.replace("_", " ") for one in (self.before, self.after))
        gaps = f"{self.before.difference.points()} before, {self.after.difference.points()} after"
        return f"{pair}: {f'{old} became {new}' if self.changed else f'still {new}'}; {gaps}."


@dataclass(frozen=True, eq=False, repr=False)
class Rescored(Shown):
    """What rulings change; made by `LabelAudit.rescore`.

    Whoever nominated the suspects gains by them: the photos that everybody gets wrong under the same wrong label, and
    whatever nobody doubts, stay as they are. `rulings.wrong_controls` says how much is left there.

    Attributes:
        before: Every system under the labels as they were.
        after: Every system under the labels as they were ruled; without a decision a photo keeps its own.
        rulings: What was ruled.
    """

    before: tuple[Evaluation, ...]
    after: tuple[Evaluation, ...]
    rulings: Rulings

    @classmethod
    def of(cls, audit: LabelAudit, rulings: Rulings) -> Self:
        """Return what rulings change; see `LabelAudit.rescore`."""
        if rulings.sheet.audit != audit.fingerprint:
            raise EvaluationError(
                f"the rulings are about audit {rulings.sheet.audit} and this one is {audit.fingerprint}: photos or "
                "labels differ; read them with the audit that wrote the sheet"
            )
        if not audit.evaluations:
            raise EvaluationError("there is no system to score again; correct data with data.relabel(rulings.labels)")
        after = tuple(_relabelled(one, rulings.labels) for one in audit.evaluations)
        return cls(audit.evaluations, after, rulings)

    def __repr__(self) -> str:
        return f"Rescored({len(self.before)} systems, {len(self.rulings.labels)} labels put right)"

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Every two systems, the later against the earlier; those of other photos are left out."""
        pairs = itertools.combinations(zip(self.before, self.after, strict=True), 2)
        return tuple(
            Change(Comparison(candidate=b[0], reference=a[0]), Comparison(candidate=b[1], reference=a[1]))
            for a, b in pairs
            if set(a[0].example_ids) == set(b[0].example_ids)
        )

    @property
    def sentence(self) -> str:
        """The result in words: what was ruled, and which verdicts change."""
        changed = [one.sentence for one in self.changes if one.changed]
        return " ".join([self.rulings.sentence, *(changed or (["No verdict changes."] if self.changes else []))])

    def _rich(self) -> RenderableType:
        """Draw every system's accuracy and every verdict, before and after."""
        from vlm_tune.audit.display import rescored_display

        return rescored_display(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each system: accuracy with its interval before and after."""
        import pandas as pd

        rows = {}
        for old, new in zip(self.before, self.after, strict=True):
            sides = {"before": old.accuracy, "after": new.accuracy}
            rows[old.name] = {
                f"{side}{end}": getattr(accuracy, field)
                for side, accuracy in sides.items()
                for end, field in (("", "value"), ("_low", "low"), ("_high", "high"))
            } | {"n": new.accuracy.n}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")

    def plot(self) -> Figure:
        """Draw every system's accuracy before and after."""
        from vlm_tune import plots

        rows = [
            (f"{one.name}, {when}", one.accuracy)
            for both in zip(self.before, self.after, strict=True)
            for one, when in zip(both, ("labels as they were", "as ruled"), strict=True)
        ]
        title = f"{self.before[0].measure.capitalize()} before and after the review"
        return plots.accuracy_forest(rows, chance=self.before[0].chance, title=title)

    def save(self, path: Path | str) -> Path:
        """Write everything to one parquet file.

        Raises:
            StorageError: The disk is full; nothing half-written is left.
        """
        sides = {
            f"{when} {at}": one
            for when, side in (("before", self.before), ("after", self.after))
            for at, one in enumerate(side)
        }
        about = {"rulings": self.rulings.model_dump(mode="json"), "sides": list(sides)}
        return save_sides(path, sides, kind="rescored audit", about=about)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            StorageError: The file is missing or is something else.
        """
        from vlm_tune.evaluation.columns import load_table

        names: Sequence[str] = load_table(path, kind="rescored audit")[1]["sides"]
        sides, about = load_sides(path, tuple(names), kind="rescored audit")
        found = list(sides.values())
        half = len(found) // 2
        return cls(tuple(found[:half]), tuple(found[half:]), Rulings.model_validate(about["rulings"]))


def _relabelled(evaluation: Evaluation, labels: Mapping[str, str]) -> Evaluation:
    import pyarrow as pa

    truths = [labels.get(name, truth) for name, truth in evaluation.truths.items()]
    place = evaluation.table.column_names.index("truth")
    table = evaluation.table.set_column(place, "truth", pa.array(truths, pa.string()))
    # It is no evaluation of the dataset any more, whose labels were others.
    return replace(evaluation, table=table, dataset_fingerprint="")
