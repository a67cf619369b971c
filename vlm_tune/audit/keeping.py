"""An audit in one parquet file: the evaluations as columns, the ranking beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlm_tune.audit.suspect import Suspect
from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Evaluation
from vlm_tune.evaluation.columns import load_table, save_table, table_of
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.audit.audit import LabelAudit

__all__ = ["Kept", "load_audit", "save_audit"]

_KIND = "label audit"


@dataclass(frozen=True)
class Kept:
    """What a file holds of an audit."""

    evaluations: tuple[Evaluation, ...]
    ranking: tuple[Suspect, ...]
    task: Task
    images: Mapping[str, Path | bytes]
    unreadable: Mapping[str, str]


def save_audit(audit: LabelAudit, path: Path | str) -> Path:
    """Write an audit; of images only the paths.

    Raises:
        StorageError: The disk is full; nothing half-written is left.
    """
    import pyarrow as pa

    sides = enumerate(audit.evaluations)
    tables = [one.table.append_column("side", pa.repeat(f"{at}", one.num_examples)) for at, one in sides]
    empty = table_of([]).append_column("side", pa.array([], pa.string()))
    images = {name: str(image) for name, image in audit.images.items() if isinstance(image, Path)}
    about = {
        "evaluations": [one.about() for one in audit.evaluations],
        "ranking": [one.model_dump(mode="json") for one in audit.ranking],
        "task": audit.task.model_dump(mode="json"),
        "images": images,
        "unreadable": dict(audit.unreadable),
    }
    return save_table(path, pa.concat_tables([empty, *tables]), kind=_KIND, about=about)


def load_audit(path: Path | str) -> Kept:
    """Read what `save_audit` wrote.

    Raises:
        StorageError: The file is missing or is not a label audit.
    """
    import pyarrow.compute as pc

    table, about = load_table(path, kind=_KIND)
    try:
        return Kept(
            evaluations=tuple(
                Evaluation.restore(table.filter(pc.field("side") == f"{at}").drop_columns("side"), one)
                for at, one in enumerate(about["evaluations"])
            ),
            ranking=tuple(Suspect.model_validate(one) for one in about["ranking"]),
            task=Task.model_validate(about["task"]),
            images={name: Path(image) for name, image in about["images"].items()},
            unreadable=about["unreadable"],
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise StorageError(f"{path} is not a label audit of this version: {error}") from error
