"""How a split came out: the share of each class that each split got, beside what was asked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat, NonNegativeInt

from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.data.strata import strata, strata_of
from vlm_tune.errors import SplitError
from vlm_tune.records import Record

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

    from vlm_tune.data.dataset import Dataset

__all__ = ["Balance", "Deviation", "measure"]


class Deviation(Record):
    """Where a class's share of a split is furthest from what was asked for."""

    label: str
    """The class."""
    split: SplitName
    """The split."""
    share: NonNegativeFloat
    """The share of the class's examples that the split has."""
    asked: NonNegativeFloat
    """The share that it should have."""

    @property
    def points(self) -> float:
        """The difference in percentage points."""
        return 100 * (self.share - self.asked)


class Balance(Record):
    """The share of each class that each split got; made by `Dataset.balance`."""

    counts: Mapping[str, Mapping[SplitName, NonNegativeInt]]
    """Class to split to number of examples; a photo that shows two classes counts for both."""
    sizes: Mapping[SplitName, NonNegativeInt]
    """Split to number of examples."""
    asked: Mapping[SplitName, NonNegativeFloat]
    """Split to the share it should have: as asked for, or else its share of all examples."""
    num_groups: NonNegativeInt
    """Number of distinct groups; 0 where no example has one."""
    num_whole_groups: NonNegativeInt
    """Number of groups that lie in one split."""

    def share(self, label: str, split: SplitName) -> float:
        """Return the share of a class's examples that a split has, 0 to 1; 0 for a class without examples."""
        return self.counts[label][split] / max(1, sum(self.counts[label].values()))

    @property
    def largest_deviation(self) -> Deviation:
        """The class and split furthest from the share asked for."""
        found = [
            Deviation(label=label, split=split, share=self.share(label, split), asked=asked)
            for label, of in self.counts.items()
            if any(of.values())
            for split, asked in self.asked.items()
        ]
        return max(found, key=lambda deviation: abs(deviation.points))

    def frame(self) -> pd.DataFrame:
        """Return a row for each class with its share in each split, 0 to 1."""
        import pandas as pd

        rows = {label: {split: self.share(label, split) for split in self.sizes} for label in self.counts}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")

    def _rich(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        total = sum(self.sizes.values())
        table = Table("class", title=f"{total} examples", title_justify="left")
        for split, size in self.sizes.items():
            table.add_column(split, justify="right", footer=f"{100 * size / total:.1f} %")
        table.columns[0].footer = "all"
        table.show_footer = True
        for label in self.counts:
            table.add_row(Text(label), *(f"{100 * self.share(label, split):.1f} %" for split in self.sizes))
        worst = self.largest_deviation
        lines = [
            f"Largest deviation: {worst.points:+.1f} points, {worst.label} in {worst.split} "
            f"({100 * worst.share:.1f} % for {100 * worst.asked:.1f} %)."
        ]
        if self.num_groups:
            lines.append(f"{self.num_whole_groups} of {self.num_groups} groups lie in one split.")
        return Group(table, *map(Text, lines))


def measure(dataset: Dataset, asked: Mapping[SplitName, float] | None) -> Balance:
    """Count a dataset's classes and groups by split; examples in no split are left out.

    Raises:
        SplitError: The dataset is not split.
    """
    sizes = Counter(dataset.splits.values())
    if not sizes:
        raise SplitError("this dataset has no splits to compare; call split() first")
    names = [name for name in SPLITS if sizes[name]]
    counts: dict[str, Counter[SplitName]] = {label: Counter() for label in strata(dataset.task)}
    homes: dict[str, set[SplitName]] = defaultdict(set)
    for example in dataset:
        split = dataset.splits.get(example.id)
        if split is None:
            continue
        for label in strata_of(example, dataset.task):
            counts[label][split] += 1
        if example.group is not None:
            homes[example.group].add(split)
    return Balance(
        counts={label: {name: of[name] for name in names} for label, of in counts.items()},
        sizes={name: sizes[name] for name in names},
        asked=asked or {name: sizes[name] / sizes.total() for name in names},
        num_groups=len(homes),
        num_whole_groups=sum(len(splits) == 1 for splits in homes.values()),
    )
