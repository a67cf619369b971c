"""How much leaked test photos flatter a model: leaked against clean photos, beside a model that saw neither."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import TYPE_CHECKING

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.pairing import pair
from vlm_tune.records import Estimate, Record
from vlm_tune.statistics import tango, wilson

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Gap", "Inflation", "leakage_inflation"]

FEWEST = 10
"""Fewer leaked or clean photos than this tell nothing about a difference."""


class Gap(Record):
    """One model on leaked and on clean test photos."""

    name: str
    """The model."""
    leaked: Estimate
    """Its accuracy on the leaked photos, with a Wilson interval."""
    clean: Estimate
    """Its accuracy on the others, with a Wilson interval."""
    difference: Estimate
    """Leaked less clean, with Newcombe's hybrid score interval."""


class Inflation(Record):
    """What leaked test photos did to a result; made by `leakage_inflation`."""

    tuned: Gap
    """The model that was trained on the copies."""
    reference: Gap | None = None
    """A model that never saw them: its difference is how much easier the leaked photos are anyway."""
    inflation: Estimate | None = None
    """The model's difference less the reference's, in accuracy; None without a reference, or with too few
    photos to tell."""

    @property
    def enough(self) -> bool:
        """Whether there are at least ten leaked and ten clean photos."""
        return min(self.tuned.leaked.n, self.tuned.clean.n) >= FEWEST

    @property
    def sentence(self) -> str:
        """The result in words."""
        gap, leaked, clean = self.tuned, self.tuned.leaked, self.tuned.clean
        if not self.enough:
            few, what = (leaked.n, "leaked") if leaked.n < FEWEST else (clean.n, "clean")
            return f"Not enough {what} photos to tell: {few}, and at least {FEWEST} are needed."
        on = f"{gap.name} scores {gap.difference.points()} on leaked photos (n={leaked.n}) against clean (n={clean.n})"
        if self.reference is None or self.inflation is None:
            return f"{on}; without a model that never saw them, leaked photos might just be easier."
        beside = f"{self.reference.name} scores {self.reference.difference.points()}"
        established = self.inflation.low > 0 or self.inflation.high < 0
        verdict = "" if established else ", which is not established"
        return f"{on}; {beside}. Leakage is worth {self.inflation.points()} there{verdict}."

    def _rich(self) -> RenderableType:
        """Draw both models on leaked and clean photos, and the sentence."""
        from rich.console import Group
        from rich.text import Text

        return Group(self._table(), Text(self.sentence))

    def frame(self) -> pd.DataFrame:
        """Return a row for each model: accuracy on leaked and clean photos, and the difference."""
        import pandas as pd

        rows = {
            gap.name: {
                f"{what}{end}": getattr(getattr(gap, what), field)
                for what in ("leaked", "clean", "difference")
                for end, field in (("", "value"), ("_low", "low"), ("_high", "high"), ("_n", "n"))
            }
            for gap in self._gaps()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    def _gaps(self) -> list[Gap]:
        return [self.tuned, *([self.reference] if self.reference else [])]

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table("model", title="Leaked against clean test photos", title_justify="left")
        for column in ("leaked", "clean", "difference"):
            table.add_column(column, justify="right")
        for gap in self._gaps():
            sides = (f"{side.percent()} (n={side.n})" for side in (gap.leaked, gap.clean))
            table.add_row(Text(gap.name), *sides, gap.difference.points())
        return table


def leakage_inflation(
    tuned: Evaluation, leaked_ids: Collection[str], *, reference: Evaluation | None = None
) -> Inflation:
    """Measure how much leaked photos in a test set raise a model's accuracy.

    Evaluate on the test split *before* its leaks are resolved. A model that was trained on the copies should be
    better on leaked photos than on clean ones by more than a model that never saw them: the difference of the
    two differences is what leakage is worth on those photos. Its interval joins Tango's intervals of the two
    models' paired difference, on leaked and on clean photos, which are independent (MOVER); Newcombe's interval
    is the same with Wilson's. Photos that one side failed on are left out.

    Sources: R. Newcombe, Stat. Med. 17 (1998), 873-890; G. Y. Zou, A. Donner, Stat. Med. 27 (2008), 1693-1702.

    Args:
        tuned: The model that was trained on the leaky training split.
        leaked_ids: Ids of leaked photos, such as `LeakageReport.leaked_test_ids`; ids of other photos are ignored.
        reference: A model that never saw the training split, on the same photos.

    Raises:
        EvaluationError: None, or all, of the photos are leaked; or the two evaluations do not fit together.

    Examples:
        >>> truth = {f"{at}": "dent" for at in range(40)}
        >>> wrong = {f"{at}": "crack" for at in range(20, 34)}
        >>> known = Evaluation.from_answers("tuned", truth=truth, answers=truth | wrong, classes=["crack", "dent"])
        >>> print(leakage_inflation(known, [f"{at}" for at in range(20)]).tuned.difference.points())
        +70.0 points [+42.8, +85.5]
    """
    leaked = set(leaked_ids)
    own = Inflation(tuned=_gap(tuned, leaked))
    if reference is None:
        return own
    tags = pair(tuned, reference).select(["example_id", "tag"]).to_pylist()
    counts = {True: Counter[str](), False: Counter[str]()}
    for row in tags:
        if row["tag"] is not None:
            counts[row["example_id"] in leaked][row["tag"]] += 1
    sides = (tango(of["candidate_only"], of["reference_only"], of.total()) for of in (counts[True], counts[False]))
    inflation = _difference(*sides, method="MOVER of Tango score 95%")
    return Inflation(tuned=own.tuned, reference=_gap(reference, leaked), inflation=inflation if own.enough else None)


def _gap(evaluation: Evaluation, leaked: set[str]) -> Gap:
    rows = evaluation.table.select(["example_id", "truth", "label", "outcome"]).to_pylist()
    counts = {True: [0, 0], False: [0, 0]}
    for row in rows:
        if row["outcome"] != "failed":
            of = counts[row["example_id"] in leaked]
            of[0] += row["label"] == row["truth"]
            of[1] += 1
    for is_leaked, (_, n) in counts.items():
        if not n:
            what = "leaked" if is_leaked else "clean"
            raise EvaluationError(
                f"{evaluation.name} answered no {what} photo; evaluate on the test split as it was before resolve()"
            )
    on_leaked, on_clean = wilson(*counts[True]), wilson(*counts[False])
    difference = _difference(on_leaked, on_clean, method="Newcombe hybrid score 95%")
    return Gap(name=evaluation.name, leaked=on_leaked, clean=on_clean, difference=difference)


def _difference(first: Estimate, second: Estimate, *, method: str) -> Estimate:
    """Difference of two independent estimates: distances to their own limits add in quadrature."""
    value = first.value - second.value
    below = math.hypot(first.value - first.low, second.high - second.value)
    above = math.hypot(first.high - first.value, second.value - second.low)
    return Estimate(value=value, low=value - below, high=value + above, n=first.n + second.n, method=method)
