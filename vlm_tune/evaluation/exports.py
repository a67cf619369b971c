"""A model beside its eight- and four-bit variants: what they cost in answers, and what they save."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import NonNegativeFloat, NonNegativeInt

from vlm_tune import _processes
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation.comparison import Comparison, Verdict
from vlm_tune.evaluation.evaluation import Evaluation
from vlm_tune.evaluation.evaluator import Evaluator
from vlm_tune.records import Estimate, Record, SavedRecord
from vlm_tune.versions import packages
from vlm_tune.vlm import VLM
from vlm_tune.vlm.card import plain
from vlm_tune.vlm.export import folder_bytes, write_export_card
from vlm_tune.vlm.quantization import weight_bytes

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["ExportReport", "Variant", "compare_exports"]

_WARM_UP = 64
"""Photos answered before the clock starts: kernels are compiled and chosen at the first of each size."""


class Variant(Record):
    """One model of the comparison."""

    name: str
    """What it is called."""
    source: str
    """Which weights it has; see `VLM.source`."""
    weights: str
    """`int8`, `nf4`, or the type of unquantised weights."""
    accuracy: Estimate | None
    """Its accuracy; None where too many photos failed."""
    difference: Estimate | None = None
    """Its accuracy less the first model's, with the Tango interval; None for the first."""
    wins: NonNegativeInt | None = None
    """Photos that only it got right."""
    losses: NonNegativeInt | None = None
    """Photos that only the first model got right."""
    p_value: float | None = None
    """Two-sided exact McNemar p-value against the first model."""
    verdict: Verdict | None = None
    """What is established about it against the first model; see `Comparison.verdict`."""
    photos_per_s: NonNegativeFloat
    """Photos a second, from encoded bytes to answers, after a warm-up."""
    load_s: NonNegativeFloat
    """Seconds it took to load."""
    weights_gb: NonNegativeFloat
    """Memory of the loaded weights, scales included."""
    peak_gb: NonNegativeFloat | None
    """Most GPU memory that torch allocated while it answered, weights included; None on a CPU."""
    disk_gb: NonNegativeFloat | None
    """Size of its folder; None for a Hugging Face id."""


class ExportReport(SavedRecord):
    """Models side by side on the same photos; the first is what the others are compared with."""

    saved_as: ClassVar[str] = "export report"
    variants: tuple[Variant, ...]
    """The models, in the order they were given."""
    device: str
    """What they ran on."""
    num_photos: NonNegativeInt
    """Photos of the dataset."""
    classes: tuple[str, ...]
    """The possible answers."""
    dataset_fingerprint: str
    """Which photos they were."""
    packages: dict[str, str]
    """Versions of the packages that did it."""

    def frame(self) -> pd.DataFrame:
        """Return a row for each model; of an estimate its value, with the interval in `_low` and `_high`."""
        import pandas as pd

        return pd.DataFrame([_flat(variant) for variant in self.variants])

    def plot(self) -> Figure:
        """Draw the accuracies with their intervals.

        Raises:
            EvaluationError: Not one of the models has an accuracy.
        """
        from vlm_tune import plots

        found = [(variant.name, variant.accuracy) for variant in self.variants if variant.accuracy is not None]
        if not found:
            raise EvaluationError("no model answered enough photos to have an accuracy")
        return plots.accuracy_forest(found, title=f"Accuracy on {self.num_photos} photos")

    def write_card(self, model: VLM) -> Path:
        """Put what was measured of an exported model, and of the first one, into its model card.

        Args:
            model: One of the exports that were compared.

        Raises:
            EvaluationError: It was not measured here.
            StorageError: Its folder is no export, or the disk is full.
        """
        place = next((at for at, variant in enumerate(self.variants) if variant.source == model.source), None)
        if place is None or model.folder is None:
            measured = ", ".join(variant.name for variant in self.variants)
            raise EvaluationError(f"{model.name} is no export that was measured here; those are {measured}")
        shown = [self.variants[at] for at in sorted({0, place})]
        return write_export_card(model.folder, measured=self._markdown(shown))

    def _rich(self) -> RenderableType:
        from rich.table import Table

        table = Table("", title=self._title, title_justify="left")
        for variant in self.variants:
            table.add_column(variant.name, justify="right")
        for measure, *cells in _rows(self.variants):
            table.add_row(measure, *cells)
        return table

    def _markdown(self, shown: Sequence[Variant]) -> str:
        head = [["", *(variant.name for variant in shown)], ["---", *("---:" for _ in shown)]]
        table = "\n".join(f"| {' | '.join(map(plain, row))} |" for row in [*head, *_rows(shown)])
        return (
            f"{plain(self._title)}. Accuracies have 95 % Wilson intervals, differences 95 % Tango intervals; p is that "
            f"of the exact McNemar test on the same photos.\n\n{table}"
        )

    @property
    def _title(self) -> str:
        return f"{self.num_photos} photos, {len(self.classes)} classes, on {self.device}"


@_processes.by_one
def compare_exports(models: Sequence[VLM], dataset: Dataset) -> ExportReport:
    """Ask several variants of a model about the same photos, and measure accuracy, speed and memory of each.

    Every one is loaded by itself, answers some photos to warm up and then all of them on the clock; answers kept of
    earlier runs are not used. A quantised model takes transformers' own forward pass, an unquantised one this
    library's where it has one for the architecture.

    Args:
        models: The models; the first, usually the unquantised one, is what the others are compared with.
        dataset: The photos, usually `data.test`.

    Raises:
        EvaluationError: There are fewer than two models, or two have the same name.
        ModelError: A model cannot be loaded.
        MissingExtraError: One is quantised, and bitsandbytes is not installed.

    Examples:
        >>> tuned = VLM("runs/damage/merged")  # doctest: +SKIP
        >>> int8 = tuned.export("runs/damage/int8", quantization="int8")  # doctest: +SKIP
        >>> compare_exports([tuned, int8], data.test).show()  # doctest: +SKIP
    """
    names = [model.name for model in models]
    if len(set(names)) < max(2, len(names)):
        raise EvaluationError(f"give at least two models with different names, not {names}")
    variants: list[Variant] = []
    reference: Evaluation | None = None
    device = ""
    for model in models:
        model.unload()
        started = time.perf_counter()
        resident = model.load()
        load_s = time.perf_counter() - started
        device = _in_words(resident.device)
        evaluation, peak = _timed(model, dataset, resident.device)
        reference = reference or evaluation
        variants.append(
            Variant(
                name=model.name,
                source=model.source,
                weights=resident.quantization or str(resident.dtype).removeprefix("torch."),
                accuracy=evaluation.accuracy if evaluation.coverage >= evaluation.min_coverage else None,
                photos_per_s=evaluation.throughput or 0.0,
                load_s=load_s,
                weights_gb=weight_bytes(resident.model) / 1e9,
                peak_gb=peak,
                disk_gb=None if model.folder is None else folder_bytes(model.folder) / 1e9,
                **({} if evaluation is reference else _paired(evaluation, reference)),
            )
        )
        del resident
        model.unload()
    return ExportReport(
        variants=tuple(variants),
        device=device,
        num_photos=len(dataset),
        classes=dataset.task.classes,
        dataset_fingerprint=dataset.fingerprint,
        packages=packages(),
    )


def _timed(model: VLM, dataset: Dataset, device: torch.device) -> tuple[Evaluation, float | None]:
    import torch

    for _ in model.predict(dataset.examples[:_WARM_UP], dataset.task):
        pass
    if device.type != "cuda":
        return Evaluator(dataset).run(model), None
    torch.cuda.reset_peak_memory_stats(device)
    return Evaluator(dataset).run(model), torch.cuda.max_memory_allocated(device) / 1e9


def _paired(evaluation: Evaluation, reference: Evaluation) -> dict[str, object]:
    try:
        found = Comparison(candidate=evaluation, reference=reference)
    except EvaluationError:
        # Not one photo was answered by both: its accuracy says that it has none.
        return {"verdict": "not_established"}
    names = ("difference", "wins", "losses", "p_value", "verdict")
    return {name: getattr(found, name) for name in names}


def _in_words(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"one {torch.cuda.get_device_name(device)}"
    return f"a CPU with {os.cpu_count()} cores" if device.type == "cpu" else str(device)


def _rows(variants: Sequence[Variant]) -> list[list[str]]:
    """Return a row for each measure: what it is called, and what it is of each model."""
    measures: dict[str, Callable[[Variant], object]] = {
        "weights": lambda one: one.weights,
        "accuracy": lambda one: "too many failed" if one.accuracy is None else one.accuracy.percent(),
        "difference": lambda one: one.difference and one.difference.points(),
        "won, lost": lambda one: None if one.wins is None else f"{one.wins}, {one.losses}",
        "exact McNemar": lambda one: None if one.p_value is None else _p(one.p_value),
        "established": lambda one: one.verdict and one.verdict.replace("not_established", "nothing"),
        "photos a second": lambda one: f"{one.photos_per_s:.1f}",
        "weights, GB": lambda one: f"{one.weights_gb:.3g}",
        "peak, GB": lambda one: one.peak_gb and f"{one.peak_gb:.3g}",
        "on disk, GB": lambda one: one.disk_gb and f"{one.disk_gb:.3g}",
    }
    return [[name, *(str(found(one) or "-") for one in variants)] for name, found in measures.items()]


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _flat(variant: Variant) -> dict[str, object]:
    row: dict[str, object] = {}
    for name in type(variant).model_fields:
        value = getattr(variant, name)
        if name in ("accuracy", "difference"):
            ends = (None, None, None) if value is None else (value.value, value.low, value.high)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        else:
            row[name] = value
    return row
