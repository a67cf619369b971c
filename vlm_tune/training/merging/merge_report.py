"""What a merge proved, as a record."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import NonNegativeFloat, NonNegativeInt

from vlm_tune.records import Estimate, Record, SavedRecord
from vlm_tune.task import Task
from vlm_tune.vlm.quantization import Quantization

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["REPORT_FILE", "MergeReport", "ProbeAnswer"]

REPORT_FILE = "merge_report.json"
"""The report's name in a merged folder."""

_NEARLY_ALL = 0.9


class ProbeAnswer(Record):
    """What base, adapter and merged model answered for one probe image, none of them quantised."""

    example_id: str
    """The probe's id."""
    base: str | None
    """The base model's answer."""
    adapter: str | None
    """The answer of base and adapter, unmerged."""
    merged: str | None
    """The merged model's answer."""
    margin: NonNegativeFloat
    """How far the adapter's best answer is ahead of its second, in nats."""
    merged_difference: NonNegativeFloat
    """Largest difference of a class's log-probability between adapter and merged, in nats."""
    base_difference: NonNegativeFloat
    """The same between adapter and base."""
    merged_base_difference: NonNegativeFloat
    """The same between merged and base: what merging changed."""
    trained: str | None = None
    """The adapter's answer on the quantised base that it was trained on; None where the base was not quantised."""
    trained_difference: NonNegativeFloat | None = None
    """Largest difference of a class's log-probability between that and merged, in nats."""


class MergeReport(SavedRecord):
    """The proof that a merged folder is its base plus the adapter, rounded once."""

    saved_as: ClassVar[str] = "merge report"
    changed: tuple[str, ...]
    """Modules whose weights changed, by their names in memory, e.g. `model.visual.blocks.0.attn.qkv`."""
    tensors_changed: NonNegativeInt
    """Tensors that got an update."""
    tensors_untouched: NonNegativeInt
    """Tensors that were read back and have the SHA-256 that they had as they came from the base."""
    untouched_sha256: str
    """SHA-256 over names and SHA-256s of those, and of headers and all other files."""
    max_ulps: NonNegativeFloat
    """Largest distance of a stored weight from the exact (float64) sum, in units in the last place."""
    retained_delta: float
    """Share of the update that survives rounding: <stored - base, update> / <update, update>."""
    least_retained_delta: float
    """The same for the module that kept least of its update."""
    least_retained_module: str
    """Which module that is."""
    agreement: Estimate
    """Share of probe images where adapter and merged model give the same answer."""
    base_agreement: Estimate
    """Share of probe images where adapter and base give the same answer."""
    max_score_difference: NonNegativeFloat
    """Largest difference of a log-probability between adapter and merged on a probe, in nats."""
    answers: tuple[ProbeAnswer, ...]
    """Every probe image."""
    task: Task
    """The question the adapter was trained for, and the probe images were asked."""
    size_bytes: NonNegativeInt
    """Size of the merged weights."""
    write_s: NonNegativeFloat
    """Wall time of writing: copying, hashing and summing, until the operating system has the last byte."""
    prove_s: NonNegativeFloat
    """Wall time of the proof: reading back, waiting for the disk, loading the models and asking them."""
    seconds: NonNegativeFloat
    """Wall time of the whole merge, checks beforehand included."""
    base_quantization: Quantization | None = None
    """How the base was quantised while the adapter was trained; it was merged into the unquantised weights."""
    trained_agreement: Estimate | None = None
    """Share of probe images where the adapter on its quantised base and the merged model give the same answer."""
    weights: tuple[float, ...] = (1.0,)
    """What each adapter's update was multiplied by."""
    adapter_fingerprint: str
    """Which adapters were merged; a finished merge of the same ones is not done again."""

    @property
    def lost(self) -> str | None:
        """In words, how much of the update was lost to rounding; None where nearly all of it is there."""
        if self.retained_delta >= _NEARLY_ALL:
            return None
        return (
            f"only {100 * self.retained_delta:.0f} % of the adapter's update survives the rounding to the checkpoint's "
            f"type, least in {self.least_retained_module} ({100 * self.least_retained_delta:.0f} %): it is small "
            "against the weights. Train longer or with a larger learning rate, or serve the adapter unmerged"
        )

    @property
    def quantization_shift(self) -> float | None:
        """Mean score difference between the merged model and what was trained, in nats: the quantisation's error.

        None where the base was not quantised, or no images were asked about.
        """
        found = [answer.trained_difference for answer in self.answers if answer.trained_difference is not None]
        return sum(found) / len(found) if found else None

    def _rich(self) -> RenderableType:
        """Draw the proof as a table."""
        from rich.table import Table

        table = Table("check", "result", title="Merge with proof")
        table.add_row("tensors changed", str(self.tensors_changed))
        table.add_row("tensors untouched, same SHA-256", str(self.tensors_untouched))
        table.add_row("largest rounding", f"{self.max_ulps:.3f} ulp (0.5 is exact rounding)")
        table.add_row("update kept after rounding", f"{100 * self.retained_delta:.2f} %")
        if self.lost is not None:
            table.add_row("", self.lost)
        if self.answers:
            table.add_row("same answer as the adapter", str(self.agreement))
            table.add_row("same answer as the base", str(self.base_agreement))
            table.add_row("largest score difference", f"{self.max_score_difference:.4f} nats")
        else:
            table.add_row("answers", "not compared: there were no probe images")
        if self.base_quantization is not None:
            table.add_row("merged into", f"the unquantised base (trained on {self.base_quantization})")
            shift = self.quantization_shift
            if shift is not None:
                table.add_row(f"same answer as trained on {self.base_quantization}", str(self.trained_agreement))
                table.add_row("mean score difference from that", f"{shift:.4f} nats")
        table.add_row("size", f"{self.size_bytes / 1e9:.3f} GB")
        table.add_row(
            "time", f"{self.write_s:.1f} s to write, {self.prove_s:.1f} s to prove, {self.seconds:.1f} s in all"
        )
        return table

    def frame(self) -> pd.DataFrame:
        """Return one row a probe image."""
        import pandas as pd

        return pd.DataFrame([answer.model_dump() for answer in self.answers])

    def plot(self) -> Figure:
        """Draw how far merged and base are from the adapter, one pair of points a probe image."""
        from vlm_tune import plots

        return plots.score_differences(
            merged=[answer.merged_difference for answer in self.answers],
            base=[answer.base_difference for answer in self.answers],
        )

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a report from its JSON file, or from the merged folder that holds it.

        Raises:
            StorageError: The file is missing, or holds something else.
        """
        source = Path(path)
        return super().load(source / REPORT_FILE if source.is_dir() else source)
