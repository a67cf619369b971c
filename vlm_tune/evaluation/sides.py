"""Two evaluations in one file, as a comparison and a parity keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_tune.evaluation.columns import load_table, save_table
from vlm_tune.evaluation.evaluation import Evaluation

__all__ = ["load_sides", "save_sides"]


def save_sides(path: Path | str, sides: Mapping[str, Evaluation], *, kind: str, about: Mapping[str, Any]) -> Path:
    """Write evaluations under their names, and what else is to be known, to one parquet file.

    Raises:
        StorageError: The disk is full; nothing half-written is left.
    """
    import pyarrow as pa

    tables = [side.table.append_column("side", pa.repeat(name, side.num_examples)) for name, side in sides.items()]
    abouts = {name: side.about() for name, side in sides.items()}
    return save_table(path, pa.concat_tables(tables), kind=kind, about={**abouts, **about})


def load_sides(
    path: Path | str, names: tuple[str, ...] | None = None, *, kind: str
) -> tuple[dict[str, Evaluation], dict[str, Any]]:
    """Read what `save_sides` wrote: the evaluations by name (all of them by default), and what else was to be known.

    Raises:
        StorageError: The file is missing or is not one of this kind.
    """
    import pyarrow.compute as pc

    table, about = load_table(path, kind=kind)
    sides = {}
    for name in names or table["side"].unique().to_pylist():
        rows = table.filter(pc.field("side") == name).drop_columns("side")
        sides[name] = Evaluation.restore(rows, about.pop(name))
    return sides, about
