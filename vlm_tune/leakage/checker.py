"""Finding leaks between splits: every pair by embedding, the likely ones by their pixels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune import _console, _processes
from vlm_tune._spreading import Spreads
from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.embedding import Embedder, EmbeddingFunction, as_embedder, default_embedder
from vlm_tune.errors import SplitError
from vlm_tune.leakage.finding import Finding, by_pixels, by_threshold
from vlm_tune.leakage.photos import Distinct, distinct
from vlm_tune.leakage.proving import Prover
from vlm_tune.leakage.report import LeakageReport, thumbnails
from vlm_tune.leakage.search import ACROSS

__all__ = ["LeakageChecker"]

MAX_DRAWN = 20_000
"""Similarities kept for the histogram."""


class LeakageChecker:
    """Finds evaluation photos that training has seen.

    Every test and validation photo is compared with every training photo, and every test with every
    validation photo, by embedding and by local features. The likeliest of each photo, in both orientations, go
    to a pixel proof (`vlm_tune.leakage.verify`), which alone decides; photos with equal pixels need none.
    Examples of different splits that share a group key are leaks too: the key says that they belong together.
    Labels play no part.

    Args:
        embedder: What makes the shortlist, or a function; `default_embedder()` unless given.
        shortlist: Photos that are always verified for each evaluation photo: so many that share most of its
            details, and half as many that are nearest by embedding; up to 20 where these reach the cut.
        threshold: A fixed rule instead: every evaluation photo is leaked whose greatest plain cosine to a
            training photo is at least this. No proof is asked; the report warns where training photos among
            themselves pass it.
        cache_dir: Where embeddings are kept between runs.

    Raises:
        ValueError: `shortlist` is less than 1, or `threshold` is no cosine.

    Examples:
        >>> from vlm_tune import Dataset, Example, Task
        >>> from vlm_tune.images import blank
        >>> photos = [Example(id=f"{i}", image=blank(8 + i % 4, 8), label="ab"[i % 2]) for i in range(8)]
        >>> task = Task(prompt="Which one?", classes=("a", "b"))
        >>> splits = {f"{i}": "test" if i < 2 else "train" for i in range(8)}
        >>> report = LeakageChecker().check(Dataset(photos, task=task, splits=splits))
        >>> report.leaked_test_ids
        ('0', '1')
    """

    def __init__(
        self,
        embedder: Embedder | EmbeddingFunction | None = None,
        *,
        shortlist: int = 5,
        threshold: float | None = None,
        cache_dir: Path | str | None = None,
    ) -> None:
        if shortlist < 1:
            raise ValueError(f"shortlist must be at least 1, got {shortlist}")
        if threshold is not None and not -1 <= threshold <= 1:
            raise ValueError(f"threshold is a cosine between -1 and 1, got {threshold}")
        self.embedder = embedder
        self.shortlist = shortlist
        self.threshold = threshold
        self.cache_dir = None if cache_dir is None else Path(cache_dir)

    @_processes.by_one
    def check(self, dataset: Dataset, *, backend: Spreads | None = None) -> LeakageReport:
        """Compare the splits of a dataset.

        Photos that cannot be read are listed in the report and left out.

        Args:
            dataset: The photos, in splits.
            backend: Where they are read and embedded, such as `RayBackend()`; here, for None. All else is done here.

        Raises:
            SplitError: There is no training split, or neither a validation nor a test split, or none of one
                side's photos can be read.
        """
        if not dataset.has_split("train"):
            raise SplitError("there is no train split to leak from; call split(test=0.25), or read split folders")
        if not (dataset.has_split("test") or dataset.has_split("validation")):
            raise SplitError("there is no test split to leak into; call split(test=0.25), or read split folders")
        embedder = default_embedder() if self.embedder is None else as_embedder(self.embedder)
        inside = [example for example in dataset if example.id in dataset.splits]
        photos = distinct(inside, embedder, cache_dir=self.cache_dir, backend=backend)
        prover = Prover(photos, dataset.splits.get, mean=_mean(photos, dataset, centred=self.threshold is None))
        _require(prover, photos)
        if self.threshold is None:
            found = by_pixels(dataset, prover, shortlist=self.shortlist)
        else:
            found = by_threshold(prover, self.threshold)
        if found.warning:
            _console.notice(found.warning)
        return self._report(dataset, photos, prover, found, embedder.name)

    def _report(
        self, dataset: Dataset, photos: Distinct, prover: Prover, found: Finding, embedder: str
    ) -> LeakageReport:
        identical = tuple(tuple(one.id for one in same) for same in photos.members.values() if len(same) > 1)
        mentioned = [name for pair in (*found.pairs, *found.within) for name in (pair.a_id, pair.b_id)]
        mentioned += [name for same in (*identical, *found.keys.values()) for name in same]
        return LeakageReport(
            dataset_fingerprint=dataset.fingerprint,
            embedder=embedder,
            threshold=self.threshold,
            cut=found.cut.value,
            cut_reason=found.cut.reason,
            warning=found.warning,
            null=_some(found.null),
            nearest=_some(found.nearest),
            num_compared=_num_compared(photos, dataset),
            num_verified=prover.num_verified,
            pairs=found.pairs,
            within=found.within,
            identical=identical,
            group_keys=found.keys,
            places={name: (dataset.splits[name], dataset.by_id(name).label) for name in dict.fromkeys(mentioned)},
            classes=_classes(dataset),
            unreadable=photos.unreadable,
            thumbnails=thumbnails(dataset, found.pairs, unreadable=photos.unreadable),
        )


def _mean(photos: Distinct, dataset: Dataset, *, centred: bool) -> NDArray[np.float32]:
    """Mean embedding of the distinct training photos, or nothing at all."""
    vectors = photos.gathered.vectors
    if not centred:
        return np.zeros(vectors.shape[1], np.float32)
    split_of = dataset.splits
    train = [row for row, same in photos.members.items() if any(split_of[one.id] == "train" for one in same)]
    return np.asarray(vectors[train].mean(axis=0) if train else vectors.sum(axis=0), np.float32)


def _require(prover: Prover, photos: Distinct) -> None:
    sides = {"training": "train" in prover.rows, "evaluation": bool({"test", "validation"} & prover.rows.keys())}
    for side, there in sides.items():
        if not there:
            raise SplitError(f"no {side} photo can be read: {next(iter(photos.unreadable.values()), '')}")


def _some(similarities: NDArray[np.floating[Any]]) -> tuple[float, ...]:
    """At most 20,000 similarities, evenly chosen: a histogram needs no more."""
    step = -(-len(similarities) // MAX_DRAWN) or 1
    return tuple(round(float(value), 4) for value in similarities[::step])


def _num_compared(photos: Distinct, dataset: Dataset) -> int:
    sizes = Counter(dataset.splits[one.id] for same in photos.members.values() for one in same)
    return sum(sizes[a] * sizes[b] for a, b in ACROSS)


def _classes(dataset: Dataset) -> dict[SplitName, Counter[str]]:
    classes = {name: Counter[str]() for name in SPLITS if dataset.has_split(name)}
    for example in dataset:
        if (split := dataset.splits.get(example.id)) is not None:
            classes[split][example.label] += 1
    return classes
