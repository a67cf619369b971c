"""Reading tables of images: CSV, JSON Lines or Parquet, one row for each image."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_tune.data.groups import finder, is_pattern, require_fit
from vlm_tune.data.locating import Locator, require_files
from vlm_tune.data.splitting import SPLITS, SplitName, parse_split
from vlm_tune.errors import DataError, nearest
from vlm_tune.records import Example
from vlm_tune.task import NONE, Task

__all__ = ["Columns", "read_table"]

Row = Mapping[str, Any]
_OPTIONAL = ("split", "group")
_KINDS: Mapping[type, str] = {str: "text", int: "a number", float: "a number"}


@dataclass(frozen=True)
class Columns:
    """Which column holds what; every other column becomes metadata.

    Attributes:
        image: The image's path.
        label: The class, or classes.
        split: The split; may be absent under this name.
        group: The group, or a pattern with one `(...)` that finds it in the id; may be absent under this name.
    """

    image: str = "image"
    label: str = "label"
    split: str = "split"
    group: str = "group"

    def check(self, table: Path, present: Iterable[str]) -> None:
        """Refuse a table without the image or label column, or without an optional one that was renamed."""
        known = list(present)
        for role, name in vars(self).items():
            if name in known or (role in _OPTIONAL and name == role) or (role == "group" and is_pattern(name)):
                continue
            close = nearest(name, known)
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise DataError(
                f"{table} has no column {name!r} (columns: {', '.join(known) or 'none'}){hint}; "
                f"say which it is with {role}=..."
            )


def read_table(
    path: Path | str, *, task: Task, columns: Columns, root: Path | str | None = None
) -> tuple[list[Example], dict[str, SplitName]]:
    """Read examples from a table without opening any image; `Dataset.from_table` says how.

    Returns:
        The examples in the order of the rows, and the split of each id that has one.

    Raises:
        DataError: The table cannot be read, is empty, lacks a column, has empty cells, names an unknown
            split, or lists images that are missing or lie outside the root.
    """
    table = Path(path)
    locator = Locator(root if root is not None else table.parent, option="root")
    rows = _rows(table)
    if not rows:
        raise DataError(f"{table} has no rows")
    present = dict.fromkeys(name for row in rows for name in row)
    columns.check(table, present)
    pattern = columns.group if columns.group not in present and is_pattern(columns.group) else None
    group_of = None if pattern is None else finder(pattern)
    _refuse_mixed(table, columns.label, rows)
    examples: list[Example] = []
    splits: dict[str, SplitName] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{table}, row {number}"
        example_id, image = _image(row.get(columns.image), locator, columns.image, where=where)
        group = _text(row.get(columns.group)) if group_of is None else group_of(example_id)
        examples.append(
            Example(
                id=example_id,
                image=image,
                label=_label(row.get(columns.label), columns.label, task, where=where),
                group=group or None,
                metadata={key: value for key, value in row.items() if key not in vars(columns).values()},
            )
        )
        if cell := _text(row.get(columns.split)):
            splits[example_id] = _split(cell, where=where)
    require_files(examples, source=table, folder=locator.folder, option="root")
    if pattern is not None:
        require_fit(pattern, examples)
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


def _image(cell: Any, locator: Locator, column: str, *, where: str) -> tuple[str, Path]:
    if isinstance(cell, Mapping) and "bytes" in cell:
        raise DataError(f"{where}: column {column!r} holds images, not paths; read the table with Dataset.from_hf")
    if not isinstance(cell, str) or not cell:
        raise DataError(f"{where}: column {column!r} holds {cell!r:.80}, not the path of an image")
    return locator.find(cell, where=where)


def _label(cell: Any, column: str, task: Task, *, where: str) -> str:
    if isinstance(cell, list):
        if not task.multi_label and len(cell) != 1:
            raise DataError(f"{where}: column {column!r} lists {len(cell)} classes; set Task(multi_label=True)")
        return ", ".join(_label(item, column, task, where=where) for item in cell) or NONE
    if cell is None or cell == "" or cell != cell:  # a missing number is not equal to itself
        hint = f"; write {NONE!r} for a photo that shows no class" if task.multi_label else ""
        raise DataError(f"{where}: column {column!r} is empty{hint}")
    if not isinstance(cell, str | int) or isinstance(cell, bool):
        raise DataError(f"{where}: column {column!r} holds {cell!r:.80}; a class is text or a whole number")
    return str(cell)


def _refuse_mixed(table: Path, column: str, rows: Sequence[Row]) -> None:
    """Refuse labels of several kinds: whether 1 and "1" are one class is not for us to guess."""
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        cell = row.get(column)
        for item in cell if isinstance(cell, list) else [cell]:
            if item is not None:
                first.setdefault(_KINDS.get(type(item), type(item).__name__), number)
    if len(first) > 1:
        (one, here), (other, there) = list(first.items())[:2]
        raise DataError(
            f"{table}: column {column!r} holds {one} in row {here} and {other} in row {there}; write all labels alike"
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
