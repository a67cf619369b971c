"""Finding leaks between splits: every pair by embedding, the likely ones by their pixels."""

from __future__ import annotations

from vlm_tune.data.dataset import Dataset
from vlm_tune.embedding import Embedder, default_embedder
from vlm_tune.errors import SplitError
from vlm_tune.leakage.gathering import gather
from vlm_tune.leakage.report import LeakageReport, thumbnails
from vlm_tune.leakage.search import Search

__all__ = ["LeakageChecker"]


class LeakageChecker:
    """Finds evaluation photos that training has seen.

    Every test and validation photo is compared with every training photo, and every test with every
    validation photo, by embedding. The most similar ones of each photo, in both orientations, and all with
    equal pixels go to a pixel proof (`vlm_tune.leakage.verify`), which alone decides. Labels play no part.

    Args:
        embedder: What makes the shortlist; `default_embedder()` unless given.
        shortlist: Most similar photos of each evaluation photo that are always verified. Up to 20 are where
            they reach the cut, and more where most of those turn out to be copies.

    Example:
        >>> from vlm_tune import Dataset, Example, Task
        >>> from vlm_tune.images import blank
        >>> photos = [Example(id=f"{i}", image=blank(8 + i % 4, 8), label="ab"[i % 2]) for i in range(8)]
        >>> task = Task(prompt="Which one?", classes=("a", "b"))
        >>> splits = {f"{i}": "test" if i < 2 else "train" for i in range(8)}
        >>> report = LeakageChecker().check(Dataset(photos, task=task, splits=splits))
        >>> report.leaked_test_ids
        ('0', '1')
    """

    def __init__(self, embedder: Embedder | None = None, *, shortlist: int = 5) -> None:
        if shortlist < 1:
            raise ValueError(f"shortlist must be at least 1, got {shortlist}")
        self.embedder = embedder
        self.shortlist = shortlist

    def check(self, dataset: Dataset) -> LeakageReport:
        """Compare the splits of a dataset.

        Photos that cannot be read are listed in the report and left out.

        Raises:
            SplitError: There is no training split, or neither a validation nor a test split, or none of one
                side's photos can be read.
        """
        if not dataset.has_split("train"):
            raise SplitError("there is no train split to leak from; call split(test=0.25), or read split folders")
        if not (dataset.has_split("test") or dataset.has_split("validation")):
            raise SplitError("there is no test split to leak into; call split(test=0.25), or read split folders")
        embedder = self.embedder or default_embedder()
        photos = gather([example for example in dataset if example.id in dataset.splits], embedder)
        search = Search(photos, dataset.splits, shortlist=self.shortlist)
        pairs = search.across()
        within = search.within(pair.a_id for pair in pairs if pair.is_leak)
        return LeakageReport(
            dataset_fingerprint=dataset.fingerprint,
            embedder=embedder.name,
            cut=search.cut.value,
            cut_reason=search.cut.reason,
            null=tuple(round(float(value), 4) for value in search.null),
            nearest=tuple(round(float(value), 4) for value in search.nearest),
            num_compared=search.num_compared,
            num_above_cut=search.num_above_cut,
            num_verified=search.num_verified,
            pairs=pairs,
            within=within,
            unreadable=photos.unreadable,
            thumbnails=thumbnails(dataset, pairs),
        )
