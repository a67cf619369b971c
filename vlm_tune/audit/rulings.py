"""What people ruled about the photos of a review sheet, read back and checked."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import NonNegativeInt

from vlm_tune.errors import DataError, StorageError, UnknownLabelError
from vlm_tune.records import Estimate, Record, SavedRecord
from vlm_tune.statistics import wilson

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from vlm_tune.audit.audit import LabelAudit

__all__ = ["COLUMNS", "Choice", "Ruling", "Rulings", "Sheet", "cell", "read_rulings", "stamp"]

Choice = Literal["keep", "relabel", "unsure"]
"""What can be ruled."""

COLUMNS = ("example_id", "label", "ruling", "new_label", "note", "sheet")
"""Columns of the CSV."""

# What a spreadsheet would take for a formula; quotes before it count, so that one more can be told from those.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_STAMP = re.compile(r"(\w+) suspects=(\d+) controls=(\d+) seed=(-?\d+)")


class Sheet(Record):
    """The photos of one review, drawn from an audit."""

    audit: str
    """Fingerprint of the audit."""
    seed: int
    """What drew the controls and the order."""
    suspects: tuple[str, ...]
    """Ids from the top of the ranking."""
    controls: tuple[str, ...]
    """Ids drawn at random from the photos that nobody doubts."""
    num_agreed: NonNegativeInt
    """How many photos the controls were drawn from."""
    order: tuple[str, ...]
    """Both in the order in which they are shown."""


class Ruling(Record):
    """What was ruled about one photo."""

    example_id: str
    """The photo."""
    label: str
    """Its label."""
    ruling: Choice
    """Whether the label is right, another one is, or nobody can tell."""
    new_label: str | None = None
    """The label that is right instead; set exactly when the ruling is `relabel`."""
    note: str = ""
    """What else was written down."""


class Rulings(SavedRecord):
    """The rulings of one sheet; read by `LabelAudit.rulings`."""

    saved_as: ClassVar[str] = "list of rulings"
    sheet: Sheet
    """What was to be ruled on."""
    rulings: tuple[Ruling, ...]
    """One for each photo that was ruled on, in the sheet's order."""

    @property
    def pending(self) -> tuple[str, ...]:
        """Ids that nobody ruled on."""
        ruled = {one.example_id for one in self.rulings}
        return tuple(name for name in self.sheet.order if name not in ruled)

    @property
    def labels(self) -> dict[str, str]:
        """Id to the right label, for labels ruled wrong: what `Dataset.relabel` takes."""
        return {one.example_id: one.new_label for one in self.rulings if one.new_label is not None}

    @property
    def wrong_suspects(self) -> Estimate:
        """Share of the suspects whose label was ruled wrong, of those that somebody could rule on."""
        return self._wrong(self.sheet.suspects)

    @property
    def wrong_controls(self) -> Estimate:
        """Share of wrong labels among the photos that nobody doubted, estimated by the controls."""
        return self._wrong(self.sheet.controls)

    def _wrong(self, ids: Sequence[str]) -> Estimate:
        decided = [one for one in self.rulings if one.example_id in set(ids) and one.ruling != "unsure"]
        return wilson(sum(one.ruling == "relabel" for one in decided), len(decided))

    @property
    def sentence(self) -> str:
        """The result in words."""
        unsure = sum(one.ruling == "unsure" for one in self.rulings)
        said = [f"{len(self.rulings)} of {len(self.sheet.order)} photos ruled on, {unsure} unsure."]
        for what, share in (("suspects", self.wrong_suspects), ("controls", self.wrong_controls)):
            if share.n:
                said.append(
                    f"Of {share.n} {what} {round(share.value * share.n)} have a wrong label: {share.percent()}."
                )
        if self.wrong_controls.n:
            few, many = (
                round(end * self.sheet.num_agreed) for end in (self.wrong_controls.low, self.wrong_controls.high)
            )
            said.append(
                f"That makes {few} to {many} wrong labels among the {self.sheet.num_agreed} that nobody doubts."
            )
        return " ".join(said)

    def _rich(self) -> RenderableType:
        """Draw how many labels were ruled wrong, and the sentence."""
        from vlm_tune.audit.display import rulings_display

        return rulings_display(self)

    def frame(self) -> pd.DataFrame:
        """Return a row for each ruling; `control` says which photos nobody had doubted."""
        import pandas as pd

        controls = set(self.sheet.controls)
        rows = [{**one.model_dump(), "control": one.example_id in controls} for one in self.rulings]
        return pd.DataFrame(rows, columns=[*Ruling.model_fields, "control"])


def stamp(sheet: Sheet) -> str:
    """Return what every row of a sheet says about it: enough to draw it again."""
    return f"{sheet.audit} suspects={len(sheet.suspects)} controls={len(sheet.controls)} seed={sheet.seed}"


def cell(text: str) -> str:
    """Return a text as it stands in a CSV: with a quote before what a spreadsheet would run as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_rulings(path: Path, audit: LabelAudit) -> Rulings:
    """Read the CSV or JSON of a review; see `LabelAudit.rulings`."""
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path} has no rulings; save them from the review page, or fill in its CSV")
    sheet = _sheet(path, audit, {row.get("sheet", "") for _, row in rows})
    found: dict[str, Ruling] = {}
    lines: dict[str, str] = {}
    for where, row in rows:
        name = row.get("example_id", "")
        if name not in sheet.order:
            raise DataError(
                f"{where}: {name!r} is not on this sheet; read it with the audit that wrote it (save, load)"
            )
        if name in lines:
            raise DataError(f"{where}: {name!r} is there already, on {lines[name]}; keep one ruling for each photo")
        lines[name] = where
        if (ruling := _ruling(where, row, audit)) is not None:
            found[name] = ruling
    return Rulings(sheet=sheet, rulings=tuple(found[name] for name in sheet.order if name in found))


def _rows(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Return every row with where it stands."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if path.suffix.lower() == ".json":
        return [(f"{path}, entry {at}", row) for at, row in enumerate(_entries(path, text), start=1)]
    # Spreadsheets of some countries write semicolons.
    separator = ";" if text.partition("\n")[0].count(";") > text.partition("\n")[0].count(",") else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
    if missing := [name for name in ("example_id", "ruling", "sheet") if name not in (reader.fieldnames or ())]:
        raise DataError(f"{path} has no column {missing[0]!r}; its columns must be {', '.join(COLUMNS)}")
    return [
        (f"{path}, line {reader.line_num}", {name: _plain(row.get(name) or "") for name in COLUMNS}) for row in reader
    ]


def _entries(path: Path, text: str) -> list[dict[str, str]]:
    try:
        found = json.loads(text)["rulings"]
        return [{name: str(row.get(name) or "") for name in COLUMNS} for row in found]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} holds no rulings as a review page saves them") from error


def _sheet(path: Path, audit: LabelAudit, stamps: set[str]) -> Sheet:
    match = _STAMP.fullmatch(next(iter(stamps)))
    if len(stamps) > 1 or match is None:
        raise DataError(f"{path}: the column 'sheet' must say the same in every row, as it was written")
    if match[1] != audit.fingerprint:
        raise DataError(
            f"{path} was made by audit {match[1]}, this one is {audit.fingerprint}: photos or labels differ"
        )
    suspects, controls, seed = map(int, match.groups()[1:])
    sheet = audit.sheet(suspects=suspects, controls=controls, seed=seed)
    if stamp(sheet) not in stamps:
        raise DataError(f"{path}: no sheet of this audit is {match[0]!r}; leave the column 'sheet' as it was written")
    return sheet


def _ruling(where: str, row: Mapping[str, Any], audit: LabelAudit) -> Ruling | None:
    label, choice = audit[row["example_id"]].label, row["ruling"].strip().lower()
    if row["label"] and row["label"] != label:
        raise DataError(f"{where}: the label was {label!r} and not {row['label']!r}; a new one goes into 'new_label'")
    new_label = row["new_label"].strip()
    if not choice and not new_label:
        return None
    if choice not in get_args(Choice):
        raise DataError(f"{where}: the ruling is one of {', '.join(get_args(Choice))}, not {choice!r}")
    if (choice == "relabel") != bool(new_label):
        wrong = "relabel needs a new_label" if choice == "relabel" else f"{choice} has no new_label"
        raise DataError(f"{where}: {wrong}; write relabel with the label that is right, or leave new_label empty")
    try:
        new = audit.task.canonical(new_label, where=where) if new_label else None
    except UnknownLabelError as error:
        raise DataError(str(error)) from error
    if new == label:
        raise DataError(f"{where}: {label!r} is what the label says; rule keep, or give another")
    return Ruling(example_id=row["example_id"], label=label, ruling=choice, new_label=new, note=row["note"])
