"""`Report`: the whole experiment on one page that can be mailed, and the same numbers as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _files, _processes, versions
from vlm_tune._console import Shown
from vlm_tune.errors import EvaluationError
from vlm_tune.evaluation import Comparison, ComparisonMatrix, Evaluation
from vlm_tune.leakage import LeakageReport
from vlm_tune.report import evaluations as always
from vlm_tune.report.blocks import Section
from vlm_tune.report.browsing import examples
from vlm_tune.report.card import model_card
from vlm_tune.report.context import Context
from vlm_tune.report.notes import Note, notes
from vlm_tune.report.photos import Photos
from vlm_tune.report.provenance import provenance
from vlm_tune.report.render import Page, render
from vlm_tune.report.sections import headline, section, unknown
from vlm_tune.report.words import about, count, duration, money, p_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Report"]

SCHEMA_VERSION = 1


class Report(Shown):
    """Evaluations on one scoreboard, and whatever else there is to tell about them.

    Three or more systems are compared each with each, in a `ComparisonMatrix`, even when it is not among the sections.

    Args:
        evaluations: The systems, in the order of the scoreboard: usually floor, base, rivals, tuned.
        sections: Further results in any order: `Comparison`, `ComparisonMatrix`, `Calibration`, `RiskCoverage`,
            `Cascade`, `CostModel`, `LeakageReport`, `Inflation`, `Profile`, `AdapterPlan`, `OverfitReport`,
            `Adapter`, `MergeReport`, `LearningCurve`, `SweepResult`, `LabelAudit`, `Rescored`.
        title: What the page is called.
        photos: Largest number of thumbnails inside the page. With more photos than that, those of the examples go to
            a folder beside the page, `<name>_files`; with 0 there are none at all.
        command: What was run, to be shown as the way to do it again.

    Raises:
        EvaluationError: There is no evaluation.
        TypeError: There is no section for one of `sections`.

    Examples:
        >>> truth = {"1.jpg": "dent", "2.jpg": "crack"}
        >>> rival = Evaluation.from_answers("a rival", truth=truth, answers=truth, classes=["crack", "dent"])
        >>> Report([rival]).answer
        'a rival is right on 100.0 % [34.2, 100.0] of 2 photos.'
    """

    def __init__(
        self,
        evaluations: Sequence[Evaluation],
        *,
        sections: Sequence[object] = (),
        title: str | None = None,
        photos: int = 200,
        command: str | None = None,
    ) -> None:
        if not evaluations:
            raise EvaluationError("a report needs at least one evaluation; Evaluator.run makes them")
        for result in sections:
            if section.dispatch(type(result)) is section.dispatch(object):
                raise unknown(result)
        self.evaluations = tuple(evaluations)
        self.sections = tuple(sections)
        self.title = title or "Which system knows these photos best?"
        self.photos = photos
        self.command = command

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons among the sections, the most telling first: best candidate, then best reference."""
        found = [result for result in self.sections if isinstance(result, Comparison)]
        found.sort(key=lambda one: (-one.candidate_accuracy.value, -one.reference_accuracy.value))
        return tuple(found)

    @cached_property
    def matrix(self) -> ComparisonMatrix | None:
        """Every system against every other, when there are three or more on the same photos.

        A matrix among the sections comes before the one that is made here.
        """
        given = [result for result in self.sections if isinstance(result, ComparisonMatrix)]
        if given or len(self.evaluations) < 3:
            return given[0] if given else None
        try:
            return ComparisonMatrix(self.evaluations)
        except EvaluationError:  # other photos, two of one name, or nothing that all answered
            return None

    @property
    def answer(self) -> str:
        """The result in one sentence: the most telling comparison's verdict, or else the best system."""
        if self.comparisons:
            return headline(self.comparisons[0])
        known = [one for one in self.evaluations if one.coverage >= one.min_coverage]
        if not known:
            return "No system answered enough photos to say how good it is."
        best = max(known, key=lambda one: one.accuracy.value)
        return f"{best.name} is right on {best.accuracy.percent()} of {count(best.accuracy.n)} photos."

    @property
    def remarks(self) -> list[str]:
        """What a reader in a hurry should know beside the answer."""
        lines = []
        for number, one in enumerate(self.comparisons):
            if number:
                lines.append(headline(one))
                continue
            line = (
                f"{one.candidate.name}: {one.candidate_accuracy.percent()}; {one.reference.name}: "
                f"{one.reference_accuracy.percent()}. {count(one.wins)} wins, {count(one.losses)} losses, "
                f"exact McNemar {p_value(one.p_value)}."
            )
            needed = one.images_needed if one.verdict == "not_established" else None
            lines.append(line + (f" About {about(needed)} test photos would settle it." if needed else ""))
        return [*lines, *self._leaks(), *map(str, self.notes)]

    @cached_property
    def notes(self) -> tuple[Note, ...]:
        """What the report says on its own account, each under a code: see `report.notes`."""
        return tuple(notes(self.evaluations, self.comparisons, self.matrix))

    def _leaks(self) -> list[str]:
        leaked = {
            example_id
            for result in self.sections
            if isinstance(result, LeakageReport)
            for example_id in result.leaked_test_ids
        }
        still_there = leaked & set(self.evaluations[0].example_ids)
        if not still_there:
            return []
        return [
            f"Caution: {count(len(still_there))} of the test photos have a near-duplicate in training; these "
            "figures flatter whoever was trained on them. LeakageReport.resolve takes them out."
        ]

    @_processes.by_one
    def save(self, path: Path | str) -> Path:
        """Write the page, `<name>.json` and perhaps `<name>_files` beside it, and return the page's path.

        Raises:
            StorageError: The disk is full or the folder cannot be written; nothing half-written is left.
        """
        target = Path(path)
        now = datetime.now(UTC)
        context = Context(self.evaluations, Photos(limit=self.photos, folder=target.with_name(f"{target.stem}_files")))
        sections = self._sections(context, now)
        page = Page(
            title=self.title,
            eyebrow=self._eyebrow(),
            answer=self.answer,
            remarks=self.remarks,
            sections=sorted(sections, key=lambda one: one.rank),
            colours=context.colours,
            version=versions.packages()["vlm-tune"],
            date=f"{now:%d %B %Y, %H:%M} UTC".lstrip("0"),
            json_name=target.with_suffix(".json").name,
        )
        text = render(page, context.photos)
        _files.write_json(target.with_suffix(".json"), self._data(sections, now))
        return _files.write_text(target, text)

    def _sections(self, context: Context, now: datetime) -> list[Section]:
        # Comparisons first: while there is room for photos, disagreements get it.
        others = [result for result in self.sections if not isinstance(result, Comparison)]
        if self.matrix is not None and self.matrix not in others:
            others.append(self.matrix)
        sections = [always.scoreboard(context, self.sections)]
        sections += [section(result, context) for result in (*self.comparisons, *others)]
        sections += [always.confusions(context), examples(context, self.sections)]
        return [*sections, provenance(context, self.sections, command=self.command, on=now.date())]

    def _eyebrow(self) -> str:
        first = self.evaluations[0]
        systems = len(self.evaluations)
        parts = [f"{count(first.num_examples)} test photos", f"{len(first.classes)} classes"]
        return " · ".join([*parts, f"{systems} system{'s' if systems > 1 else ''}"])

    def _data(self, sections: Iterable[Section], now: datetime) -> dict[str, Any]:
        data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "title": self.title,
            "created": now.isoformat(timespec="seconds"),
            "answer": self.answer,
            "remarks": self.remarks,
            "notes": [asdict(note) for note in self.notes],
            "evaluations": [one.to_dict() for one in self.evaluations],
            "comparisons": [one.to_dict() for one in self.comparisons],
            "packages": versions.packages(),
            "machine": versions.hardware(),
        }
        for part in sections:
            if part.key:
                data.setdefault(part.key, part.data)
        return data

    def to_markdown(self, *, model: str | None = None) -> str:
        """Return a model card in the Hub's format: verdict, scoreboard, limits, training, merge and versions.

        Args:
            model: Name of the system that the card is about; by default the best candidate of a comparison or,
                without one, the last system.

        Raises:
            EvaluationError: There is no system of that name.

        Examples:
            >>> truth = {"1.jpg": "dent", "2.jpg": "crack"}
            >>> tuned = Evaluation.from_answers("tuned", truth=truth, answers=truth, classes=["crack", "dent"])
            >>> "| tuned | 100.0 % [34.2, 100.0] | 2 |" in Report([tuned]).to_markdown()
            True
        """
        systems = {one.name: one for one in self.evaluations}
        chosen = self.comparisons[0].candidate if self.comparisons else self.evaluations[-1]
        if model is not None and model not in systems:
            raise EvaluationError(f"no system is called {model!r}; there are {', '.join(systems)}")
        return model_card(
            self.evaluations,
            self.sections,
            model=chosen if model is None else systems[model],
            answer=self.answer,
            remarks=self.remarks,
            command=self.command,
        )

    def _rich(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        pairs = [] if self.matrix is None else [self.matrix._rich()]
        return Group(self._table(), Text(self.answer, style="bold"), *map(Text, self.remarks), *pairs)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title), title_justify="left")
        table.add_column("system")
        for column in (f"{self.evaluations[0].measure}, 95 % interval", "coverage", "time", "cost"):
            table.add_column(column, justify="right")
        for one in self.evaluations:
            cost = money(one.cost_usd)
            table.add_row(Text(one.name), one.headline, f"{one.coverage:.1%}", duration(one.wall_s), cost)
        return table

    def frame(self) -> pd.DataFrame:
        """Return a row per system: accuracy with its interval, F1, coverage, time, speed and cost."""
        import pandas as pd

        rows = []
        for one in self.evaluations:
            enough = one.coverage >= one.min_coverage
            rows.append(
                {
                    "system": one.name,
                    "accuracy": one.accuracy.value if enough else None,
                    "low": one.accuracy.low if enough else one.accuracy_bounds[0],
                    "high": one.accuracy.high if enough else one.accuracy_bounds[1],
                    "micro_f1": one.micro_f1.value,
                    "macro_f1": one.macro_f1.value,
                    "n": one.num_examples - one.outcomes["failed"],
                    "coverage": one.coverage,
                    "wall_s": one.wall_s,
                    "throughput": one.throughput,
                    "cost_usd": one.cost_usd,
                }
            )
        return pd.DataFrame(rows).set_index("system")

    def plot(self) -> Figure:
        """Draw every system's accuracy with its interval; systems without enough answers are left out."""
        from vlm_tune import plots

        known = [one for one in self.evaluations if one.coverage >= one.min_coverage]
        first = self.evaluations[0]
        rows = [(one.name, one.accuracy) for one in known]
        return plots.accuracy_forest(rows, chance=first.chance, title=first.measure.capitalize())
