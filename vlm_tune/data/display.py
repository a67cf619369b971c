"""A dataset as a table of counts and as a frame."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.data.splitting import SPLITS
from vlm_tune.data.strata import strata, strata_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from vlm_tune.data.dataset import Dataset

__all__ = ["as_frame", "as_table"]


def as_table(dataset: Dataset) -> Table:
    """Return the number of examples of each class in each split."""
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in SPLITS if dataset.has_split(name)]
    members = [
        (label, dataset.splits.get(example.id)) for example in dataset for label in strata_of(example, dataset.task)
    ]
    counts = Counter(members)
    totals = Counter(label for label, _ in members)
    table = Table("class", title=f"{len(dataset)} examples", title_justify="left")
    for name in (*columns, "all"):
        table.add_column(name, justify="right")
    for label in strata(dataset.task):
        table.add_row(Text(label), *(str(counts[label, name]) for name in columns), str(totals[label]))
    return table


def as_frame(dataset: Dataset) -> pd.DataFrame:
    """Return a row for each example; for a multi-label task with a true-or-false column for each class."""
    import pandas as pd

    rows = [
        (e.id, e.label, dataset.splits.get(e.id), e.group, str(e.image) if isinstance(e.image, Path) else None)
        for e in dataset
    ]
    frame = pd.DataFrame(rows, columns=["id", "label", "split", "group", "image"])
    if dataset.task.multi_label:
        for label in dataset.task.classes:
            # By number: a class may have the name of another column.
            shown = [label in strata_of(example, dataset.task) for example in dataset]
            frame.insert(len(frame.columns), label, shown, allow_duplicates=True)
    return frame
