"""Reading tables of images: CSV, JSON Lines or Parquet, one row for each image."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vlm_tune.data.splitting import SPLITS, SplitName, parse_split
from vlm_tune.errors import DataError, nearest
from vlm_tune.records import Example

__all__ = ["Columns", "read_table"]

Row = Mapping[str, Any]
_OPTIONAL = ("split", "group")


class Columns:
    """Which column holds what; every other column becomes metadata."""

    def __init__(self, *, image: str, label: str, split: str, group: str) -> None:
        self.image = image
        self.label = label
        self.split = split
        self.group = group

    def check(self, table: Path, present: Iterable[str]) -> None:
        """Refuse a table without the image or label column, or without an optional one that was renamed."""
        known = list(present)
        for role, name in vars(self).items():
            if name in known or (role in _OPTIONAL and name == role):
                continue
            close = nearest(name, known)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise DataError(
                f"{table} has no column {name!r} (columns: {', '.join(known) or 'none'}){hint}; "
                f"say which it is with {role}=..."
            )


def read_table(
    path: Path | str, *, columns: Columns, root: Path | str | None = None
) -> tuple[list[Example], dict[str, SplitName]]:
    """Read examples from a table without opening any image; `Dataset.from_table` says how.

    Returns:
        The examples in the order of the rows, and the split of each id that has one.

    Raises:
        DataError: The table cannot be read, is empty, lacks a column, has empty cells, names an unknown
            split, or lists images that are missing or lie outside the root.
    """
    table = Path(path)
    folder = Path(root if root is not None else table.parent).resolve()
    rows = _rows(table)
    if not rows:
        raise DataError(f"{table} has no rows")
    columns.check(table, dict.fromkeys(name for row in rows for name in row))
    examples: list[Example] = []
    splits: dict[str, SplitName] = {}
    missing: list[str] = []
    for number, row in enumerate(rows, start=1):
        where = f"{table}, row {number}"
        example = _example(row, columns, folder, where=where)
        examples.append(example)
        if not Path(str(example.image)).is_file():
            missing.append(example.id)
        if cell := _text(row.get(columns.split)):
            splits[example.id] = _split(cell, where=where)
    if missing:
        first = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        raise DataError(f"{len(missing)} of {len(rows)} images in {table} are missing below {folder}: {first}")
    return examples, splits


def _rows(table: Path) -> list[dict[str, Any]]:
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(table.suffix.lower())
    if reader is None:
        raise DataError(f"{table} is no table that can be read; known endings: {', '.join(readers)}")
    try:
        return reader(table)
    except OSError as error:
        raise DataError(f"cannot read {table}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 text: {error}") from error


def _read_csv(table: Path) -> list[dict[str, Any]]:
    # "utf-8-sig" because spreadsheets begin their files with a byte order mark.
    with table.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    expected = len(reader.fieldnames or ())
                    raise DataError(f"{table}, line {reader.line_num}: not the {expected} cells of the header")
                rows.append(row)
        except csv.Error as error:
            raise DataError(f"{table}, line {reader.line_num}: {error}") from error
    return rows


def _read_jsonl(table: Path) -> list[dict[str, Any]]:
    rows = []
    with table.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{table}, line {number}: not JSON ({error.msg})") from error
            if not isinstance(row, dict):
                raise DataError(f"{table}, line {number}: not a JSON object")
            rows.append(row)
    return rows


def _read_parquet(table: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with table.open("rb") as file:
        try:
            rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
        except pa.ArrowInvalid as error:
            raise DataError(f"{table} is not a Parquet file: {error}") from error
    return rows


def _example(row: Row, columns: Columns, folder: Path, *, where: str) -> Example:
    name = row.get(columns.image)
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: column {columns.image!r} holds {name!r:.80}, not the path of an image")
    label = _text(row.get(columns.label))
    if not label:
        raise DataError(f"{where}: column {columns.label!r} is empty")
    # Normalised as text, so that an image keeps the id it has in the table whatever links lie on its way.
    image = os.path.normpath(folder / name)
    if not Path(os.path.realpath(image)).is_relative_to(folder) or not Path(image).is_relative_to(folder):
        raise DataError(f"{where}: image {name!r} leaves {folder}; pass the folder that holds all with root=...")
    return Example(
        id=Path(image).relative_to(folder).as_posix(),
        image=Path(image),
        label=label,
        group=_text(row.get(columns.group)) or None,
        metadata={key: value for key, value in row.items() if key not in vars(columns).values()},
    )


def _split(cell: str, *, where: str) -> SplitName:
    split = parse_split(cell)
    if split is None:
        close = nearest(cell, SPLITS)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise DataError(f"{where}: {cell!r} is not a split ({', '.join(SPLITS)}){hint}")
    return split


def _text(cell: Any) -> str:
    # Spaces stay: a label that differs by one is a slip the task's check should see.
    return "" if cell is None else str(cell)
