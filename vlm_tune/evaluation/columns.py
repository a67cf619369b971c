"""Predictions as Arrow columns, a row per example, and the one file that tables are kept in."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune._files import atomic_file
from vlm_tune.errors import StorageError
from vlm_tune.records import Example, Prediction, Usage

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["load_table", "prediction_of", "row_of", "save_table", "table_of"]

_ROWS_AT_ONCE = 2_000
_FIELDS = ("outcome", "label", "raw", "latency_s", "cost_usd", "model_version", "error")
_TOKENS = ("input_tokens", "cached_tokens", "image_tokens", "output_tokens", "thinking_tokens")


def schema() -> pa.Schema:
    """Return the columns of an evaluation's table."""
    import pyarrow as pa

    return pa.schema(
        [
            ("example_id", pa.string()),
            ("truth", pa.string()),
            ("group", pa.string()),
            ("image", pa.string()),
            ("content_hash", pa.string()),
            ("outcome", pa.string()),
            ("label", pa.string()),
            ("scores", pa.list_(pa.float64())),
            ("raw", pa.string()),
            ("latency_s", pa.float64()),
            ("cost_usd", pa.float64()),
            ("model_version", pa.string()),
            ("error", pa.string()),
            *((name, pa.int64()) for name in _TOKENS),
        ]
    )


def row_of(
    example: Example, prediction: Prediction, classes: Sequence[str], *, content_hash: str | None
) -> dict[str, Any]:
    """Return one row: the scores as a list in the order of the classes, the image as its path."""
    row: dict[str, Any] = {name: getattr(prediction, name) for name in _FIELDS}
    if prediction.usage is not None:
        row |= {name: getattr(prediction.usage, name) for name in _TOKENS}
    return row | {
        "example_id": example.id,
        "truth": example.label,
        "group": example.group,
        "image": None if isinstance(example.image, bytes) else str(example.image),
        "content_hash": content_hash,
        "scores": [prediction.scores[label] for label in classes] if prediction.scores is not None else None,
    }


def prediction_of(row: Mapping[str, Any], classes: Sequence[str]) -> Prediction:
    """Return the prediction that a row holds."""
    usage = None
    if row["input_tokens"] is not None:
        usage = Usage(**{name: row[name] for name in _TOKENS})
    scores = None if row["scores"] is None else dict(zip(classes, row["scores"], strict=True))
    fields = {name: row[name] for name in _FIELDS}
    return Prediction(example_id=row["example_id"], usage=usage, scores=scores, **fields)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the rows as a table, made piece by piece so that few are held as objects."""
    import pyarrow as pa

    columns = schema()
    batches = []
    rows = iter(rows)
    while piece := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        batches.append(pa.RecordBatch.from_pylist(piece, schema=columns))
    return pa.Table.from_batches(batches, schema=columns)


def save_table(path: Path | str, table: pa.Table, *, kind: str, about: Mapping[str, Any]) -> Path:
    """Write a table and what it is about to one parquet file, atomically."""
    import pyarrow.parquet as pq

    note = json.dumps({"kind": kind, "version": 1, **about}, allow_nan=False)
    target = Path(path)
    with atomic_file(target) as temporary:
        pq.write_table(table.replace_schema_metadata({"vlm_tune": note}), temporary, compression="zstd")
    return target


def load_table(path: Path | str, *, kind: str) -> tuple[pa.Table, dict[str, Any]]:
    """Read what `save_table` wrote.

    Raises:
        StorageError: The file is missing, or is not one of this kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = Path(path)
    try:
        with source.open("rb") as file:
            table = pq.read_table(file)
        about = json.loads((table.schema.metadata or {})[b"vlm_tune"])
    except OSError as error:
        raise StorageError(f"cannot read {source}: {error.strerror or error}") from error
    except (pa.ArrowException, KeyError, ValueError) as error:
        raise StorageError(f"{source} is not a saved {kind}") from error
    if (about.pop("kind", None), about.pop("version", None)) != (kind, 1):
        raise StorageError(f"{source} is not a saved {kind}, or one of a newer version of vlm-tune")
    return table.replace_schema_metadata(None), about
