"""The tuned model first, an API for the photos it is not sure of: how accurate that is, and what it costs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from vlm_tune._console import Shown
from vlm_tune.cost import Cost
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.calibration.threshold import OperatingPoint, Threshold, confidences
from vlm_tune.evaluation.comparing.counts import groups_of, share
from vlm_tune.evaluation.comparison import Comparison
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.pairing import pair
from vlm_tune.records import Estimate
from vlm_tune.statistics import ratio, wilson

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from rich.console import RenderableType

__all__ = ["Cascade", "cost_of_both"]

_STEPS = 40


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Cascade(Shown):
    """Two systems in a row: the first answers every photo, the second those it is not sure enough of; immutable.

    Nothing is asked again: both have answered all photos, and the cascade takes the one answer or the other.

    Args:
        first: Answers of the cheap model, with probabilities.
        second: Answers of the dear one on the same photos.
        threshold: From which confidence on the first decides alone; chosen on other photos.
        first_cost: What an image costs with the first, such as `CostModel.of_gpu(...)`.
        second_cost: What an image costs with the second, such as `CostModel.of_api(...)`.

    Raises:
        EvaluationError: The two do not fit together, the first gave no probabilities, or the threshold is another
            system's.
    """

    first: Evaluation
    """The cheap model's answers."""
    second: Evaluation
    """The dear one's."""
    threshold: Threshold
    """From which confidence on the first decides alone."""
    first_cost: Cost | None = None
    """What an image costs with the first."""
    second_cost: Cost | None = None
    """What an image costs with the second."""

    def __post_init__(self) -> None:
        if self.threshold.system != self.first.name:
            raise EvaluationError(f"the threshold is one of {self.threshold.system}, not of {self.first.name}")
        _ = self._alone
        pair(self.first, self.second)

    def __repr__(self) -> str:
        return f"Cascade({self.evaluation.name!r}: {self.evaluation.headline})"

    @cached_property
    def _alone(self) -> NDArray[np.bool_]:
        return self.threshold.decides(self.first)

    @property
    def point(self) -> OperatingPoint:
        """Which share the first decides alone, and how accurately."""
        return self.threshold.applied(self.first)

    @property
    def asked(self) -> Estimate:
        """Share of the photos that the second is asked about, with the Wilson interval."""
        return share(~self._alone, groups=groups_of(self.first.table["group"]))

    @cached_property
    def evaluation(self) -> Evaluation:
        """The cascade as a system of its own: the answers it gives, to be compared and reported like any other."""
        known = f"{self.first.predictor_fingerprint} {self.second.predictor_fingerprint} {self.threshold.value}"
        return Evaluation(
            name=f"{self.first.name}, then {self.second.name}",
            classes=self.first.classes,
            table=_joined(self.first, self.second, self._alone),
            predictor_fingerprint=hashlib.sha256(known.encode()).hexdigest()[:16],
            dataset_fingerprint=self.first.dataset_fingerprint,
            task=self.first.task,
            min_coverage=max(self.first.min_coverage, self.second.min_coverage),
            multi_label=self.first.multi_label,
        )

    @cached_property
    def comparison(self) -> Comparison:
        """The cascade against the second alone."""
        return Comparison(candidate=self.evaluation, reference=self.second)

    @property
    def cost(self) -> Cost | None:
        """What an image costs: the first for all, the second for those asked; None where a cost is not known."""
        if self.first_cost is None or self.second_cost is None:
            return None
        cost, first, second = cost_of_both(self.first_cost, self.second_cost, self.asked), self.first, self.second
        part = f"{self.asked.percent()} of the images also {second.name}: {self.second_cost.basis}"
        return cost.model_copy(update={"basis": f"{first.name}: {self.first_cost.basis}; {part}"})

    @property
    def relative_cost(self) -> Estimate | None:
        """What an image costs over what it costs with the second alone; None where a cost is not known.

        Raises:
            EvaluationError: A cost is nothing, or its interval reaches zero.
        """
        if self.first_cost is None or self.second_cost is None:
            return None
        try:
            own = ratio(_estimate(self.first_cost), _estimate(self.second_cost))
        except ValueError as error:
            raise EvaluationError(f"a relative cost needs two costs above zero: {error}") from error
        asked = self.asked
        value = own.value + asked.value
        below = math.hypot(own.value - own.low, asked.value - asked.low)
        above = math.hypot(own.high - own.value, asked.high - asked.value)
        method = f"MOVER of {asked.method} and the ratio of costs"
        return Estimate(value=value, low=max(0.0, value - below), high=value + above, n=asked.n, method=method)

    @property
    def sentence(self) -> str:
        """The cascade in words."""
        parts = [f"{self.first.name} decides {self.point.alone.percent()} alone, {self.second.name} gets the rest:"]
        parts.append(f"right in {self.evaluation.headline}.")
        parts.append(self.comparison.sentence)
        if self.cost is not None and self.second_cost is not None:
            thousand = self.cost.times(1000)
            parts.append(f"A thousand images cost {thousand} instead of {self.second_cost.times(1000)}.")
        if self.point.same_photos:
            parts.append("The threshold was chosen on these very photos, so this is flattered.")
        return " ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return {
            "name": self.evaluation.name,
            "threshold": self.threshold.model_dump(),
            "point": self.point.model_dump(),
            "asked": self.asked.model_dump(),
            "comparison": self.comparison.to_dict(),
            "cost": self.cost.model_dump() if self.cost else None,
            "sentence": self.sentence,
        }

    def frame(self) -> pd.DataFrame:
        """Return a row for each of 41 shares asked: what accuracy the cascade has on these photos, and its cost."""
        import pandas as pd

        table = pair(self.first, self.second)
        there = table["tag"].is_valid().to_numpy()
        tags = np.array(table["tag"].filter(there).to_pylist(), dtype=str)
        order = np.argsort(-confidences(self.first)[there], kind="stable")
        first = np.isin(tags, ["both_right", "candidate_only"])[order]
        second = np.isin(tags, ["both_right", "reference_only"])[order]
        n = len(order)
        rights = np.append(0, np.cumsum(first)) + np.append(np.cumsum(second[::-1])[::-1], 0)
        rows = []
        for alone in sorted({round(n * step / _STEPS) for step in range(_STEPS + 1)}):
            accuracy = wilson(int(rights[alone]), n)
            row = {"asked": 1 - alone / n, "accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high}
            if self.first_cost is not None and self.second_cost is not None:
                row["usd"] = self.first_cost.usd + row["asked"] * self.second_cost.usd
            rows.append(row)
        return pd.DataFrame(rows)

    def _rich(self) -> RenderableType:
        """Draw what the first decides, what the cascade gets right, and what it costs."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table("", "accuracy", "asked", title=self.evaluation.name, title_justify="left")
        table.add_row(self.first.name, self.first.headline, "0 %")
        table.add_row("cascade", self.evaluation.headline, self.asked.percent())
        table.add_row(self.second.name, self.second.headline, "100 %")

        return Group(table, Text(f"{self.threshold.sentence}\n{self.sentence}"))

    def plot(self) -> Figure:
        """Draw the accuracy by what a thousand images cost or, without costs, by the share asked."""
        from vlm_tune.plots.calibration import cascade

        frame = self.frame()
        priced = "usd" in frame
        x = 1000 * frame["usd"] if priced else frame["asked"]
        at = 1000 * self.cost.usd if priced and self.cost else self.asked.value
        return cascade(
            x.to_numpy(),
            *(frame[name].to_numpy() for name in ("accuracy", "low", "high")),
            at=at,
            names=(self.first.name, self.second.name),
            usd=1000 * self.second_cost.usd if priced and self.second_cost else None,
        )


def cost_of_both(first: Cost, second: Cost, asked: Estimate) -> Cost:
    """Return what an image costs with the first and, for the share that is asked, with the second.

    The distances of the three intervals to their values add in quadrature, each times what it is multiplied with
    (MOVER). Source: G. Y. Zou, A. Donner, Stat. Med. 27 (2008), 1693-1702.

    Examples:
        >>> half = wilson(50, 100)
        >>> print(cost_of_both(Cost.exact(0.001, basis="ours"), Cost.exact(0.01, basis="theirs"), half))
        $0.00600 [0.00504, 0.00696]
    """
    usd = first.usd + asked.value * second.usd
    below = (first.usd - first.low, (asked.value - asked.low) * second.usd, asked.value * (second.usd - second.low))
    above = (first.high - first.usd, (asked.high - asked.value) * second.usd, asked.value * (second.high - second.usd))
    return Cost(
        usd=usd,
        low=max(0.0, usd - math.hypot(*below)),
        high=usd + math.hypot(*above),
        n=asked.n,
        basis=f"{first.basis}; {asked.percent()} of the images also {second.basis}",
        warnings=tuple(dict.fromkeys(first.warnings + second.warnings)),
    )


def _joined(first: Evaluation, second: Evaluation, alone: NDArray[np.bool_]) -> pa.Table:
    """Return a row per example: the first's where it decides alone, else the second's with the time of both."""
    import pyarrow as pa
    import pyarrow.compute as pc

    left, right = first.table, second.table
    right = right.take(pc.index_in(left["example_id"], value_set=right["example_id"].combine_chunks()))
    both = pc.add(left["latency_s"], right["latency_s"])
    right = right.set_column(right.column_names.index("latency_s"), "latency_s", both)
    places = np.where(alone, np.arange(len(alone)), len(alone) + np.arange(len(alone)))
    joined = pa.concat_tables([left, right]).take(pa.array(places))
    # The two know of classes in different ways, so the cascade has no probabilities.
    nothing = pa.nulls(len(alone), type=joined.schema.field("scores").type)
    return joined.set_column(joined.column_names.index("scores"), "scores", nothing)


def _estimate(cost: Cost) -> Estimate:
    return Estimate(value=cost.usd, low=cost.low, high=cost.high, n=cost.n, method=cost.basis)
