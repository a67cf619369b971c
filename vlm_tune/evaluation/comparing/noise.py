"""The same system run twice: how many answers change for no reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import NonNegativeInt

from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.comparing.counts import count_pairs, groups_of, share
from vlm_tune.evaluation.pairing import pair
from vlm_tune.records import Estimate, Record

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["RunNoise", "run_noise", "same_system"]


class RunNoise(Record):
    """Two identical runs of one system on the same examples."""

    name: str
    """The system."""
    flipped: Estimate
    """Share of the examples with another answer the second time, with the Wilson interval."""
    verdicts_flipped: Estimate
    """Share of the examples that were right once and wrong once."""
    difference: Estimate
    """The second run's accuracy less the first one's, with the Tango interval."""
    n_missing: NonNegativeInt
    """Examples left out, because a run failed on them."""

    @property
    def sentence(self) -> str:
        """The noise in words."""
        if not self.flipped.value:
            return (
                f"Two runs of {self.name} gave the same answer on all {self.flipped.n} examples; at most "
                f"{100 * self.flipped.high:.1f} % would change."
            )
        return (
            f"Two runs of {self.name} gave another answer on {self.flipped.percent()} of {self.flipped.n} examples, "
            f"and the second one's accuracy less the first one's is {self.difference.points()}."
        )

    def frame(self) -> pd.DataFrame:
        """Return a row for each share, with its interval."""
        import pandas as pd

        names = ("flipped", "verdicts_flipped", "difference")
        rows = {name: getattr(self, name).model_dump() for name in names}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("what")

    def _rich(self) -> RenderableType:
        from rich.table import Table

        table = Table("", title=f"Two runs of {self.name}, n = {self.flipped.n}", title_justify="left")
        table.add_column("", justify="right")
        table.add_row("another answer", self.flipped.percent())
        table.add_row("right once, wrong once", self.verdicts_flipped.percent())
        table.add_row("accuracy, second less first", self.difference.points())
        return table


def run_noise(first: Evaluation, second: Evaluation, *, level: float = 0.95) -> RunNoise:
    """Measure how many answers change between two identical runs of one system.

    Ask the second time in another run folder; answers that are read back from the first do not change.

    Args:
        first: One run.
        second: The other one, of the same predictor on the same examples.
        level: Level of the intervals.

    Raises:
        EvaluationError: They are not of one predictor, not about the same examples, or have no answered example in
            common.

    Examples:
        >>> from vlm_tune.evaluation import Evaluation
        >>> truth = {f"{at}.jpg": "dent" for at in range(50)}
        >>> def run(answers): return Evaluation.from_answers(
        ...     "Gemini", truth=truth, answers=truth | answers, classes=["crack", "dent"])
        >>> print(run_noise(run({}), run({"7.jpg": "crack"})).flipped)
        0.020 [0.004, 0.105] (n=50)
    """
    if not same_system(first, second):
        raise EvaluationError(
            f"{first.name} and {second.name} are not two runs of one system: their fingerprints differ; ask one "
            "predictor twice, each time in a run folder of its own"
        )
    table = pair(second, first)
    there = table["tag"].is_valid().to_numpy()
    if not there.any():
        raise EvaluationError(f"the two runs of {first.name} have no answered example in common; run them again")
    answered = table.filter(there)
    groups = groups_of(answered["group"])
    left, right = (answered[f"{side}_label"].to_pylist() for side in ("candidate", "reference"))
    changed = np.array([one != other for one, other in zip(left, right, strict=True)])
    tags = np.array(answered["tag"].to_pylist())
    hits = [np.isin(tags, ["both_right", only]) for only in ("candidate_only", "reference_only")]
    counts = count_pairs(hits[0], hits[1], groups=groups, level=level)
    return RunNoise(
        name=first.name,
        flipped=share(changed, groups=groups, level=level),
        verdicts_flipped=share(hits[0] != hits[1], groups=groups, level=level),
        difference=counts.difference,
        n_missing=int(np.count_nonzero(~there)),
    )


def same_system(first: Evaluation, second: Evaluation) -> bool:
    """Whether two evaluations are of one predictor: by fingerprint or, for answers made elsewhere, by name."""
    if first.predictor_fingerprint or second.predictor_fingerprint:
        return first.predictor_fingerprint == second.predictor_fingerprint
    return first.name == second.name
