"""`find_copies`: which photos of a set are copies of each other, whatever their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vlm_tune.data.dataset import Dataset
from vlm_tune.embedding import Embedder, EmbeddingFunction, as_embedder, default_embedder
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.pairs import LeakPair, conflicts, pair_frame
from vlm_tune.leakage.photos import distinct
from vlm_tune.leakage.proving import Prover
from vlm_tune.leakage.search import Search
from vlm_tune.records import Example, Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Copies", "find_copies"]

SHORTLIST = 5


class Copies(Record):
    """The copies among some photos; made by `find_copies`."""

    embedder: str
    """What made the shortlist."""
    num_examples: int
    """Examples that could be read."""
    pairs: tuple[LeakPair, ...]
    """Links between copies, `identical` ones first. Many copies of one photo are a chain of links, not all
    their pairs; photos with equal pixels are one pair with their number in `copies`."""
    groups: tuple[tuple[str, ...], ...]
    """Ids that are copies of each other, directly or through others; the largest group first."""
    conflicts: tuple[LeakPair, ...]
    """Copies whose labels differ: at least one of them is wrong."""
    unreadable: Mapping[str, str] = Field(default_factory=dict)
    """Id of each photo that cannot be read, and why."""

    def frame(self) -> pd.DataFrame:
        """Return a row for each pair: ids, splits, labels, tier, similarity, explanation."""
        return pair_frame(self.pairs)


def find_copies(
    examples: Sequence[Example],
    *,
    embedder: Embedder | EmbeddingFunction | None = None,
    cache_dir: Path | str | None = None,
) -> Copies:
    """Find identical photos and near copies in a set, whatever splits they are in.

    Every photo is compared with every other one by embedding; each one's nearest, and others that are more
    alike than photos of this set usually are, go to the pixel proof. Labels play no part.

    Args:
        examples: A dataset or any examples; a dataset's splits are named in the pairs.
        embedder: What makes the shortlist, or a function; `default_embedder()` unless given.
        cache_dir: Where embeddings are kept between runs.

    Examples:
        >>> from vlm_tune.images import blank
        >>> sizes = ((8, 8), (9, 8), (8, 8))
        >>> photos = [Example(id=f"{i}", image=blank(*size), label="a") for i, size in enumerate(sizes)]
        >>> find_copies(photos).groups
        (('0', '2'),)
    """
    embedder = default_embedder() if embedder is None else as_embedder(embedder)
    photos = distinct(examples, embedder, cache_dir=None if cache_dir is None else Path(cache_dir))
    everywhere = Prover(photos, lambda _: None, mean=_mean(photos.gathered.vectors))
    search = Search(everywhere, shortlist=SHORTLIST, home=None)
    found = {pair: score for _, links in search.within() for pair, score in links.items()}
    pairs = [everywhere.record(pair, (None, None), similarity=score) for pair, score in found.items()]
    splits = examples.splits if isinstance(examples, Dataset) else {}
    pairs = [
        pair.model_copy(update={"a_split": splits.get(pair.a_id), "b_split": splits.get(pair.b_id)}) for pair in pairs
    ]
    equal = ([(one.id, splits.get(one.id), one.label) for one in same] for same in photos.members.values())
    links = Links[str]((pair.a_id, pair.b_id) for pair in pairs)
    for same in photos.members.values():
        links.join_all(example.id for example in same)
    return Copies(
        embedder=embedder.name,
        num_examples=sum(map(len, photos.members.values())),
        pairs=tuple(sorted(pairs, key=LeakPair.rank)),
        groups=tuple(sorted(links.groups(), key=lambda group: (-len(group), group))),
        conflicts=conflicts(pairs, equal),
        unreadable=photos.unreadable,
    )


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors.mean(axis=0), np.float32) if len(vectors) else vectors.sum(axis=0)
