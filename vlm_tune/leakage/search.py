"""From embeddings to proved pairs: the shortlist of each photo, and what its pixels say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from vlm_tune._console import progress
from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.embedding import workers
from vlm_tune.errors import SplitError
from vlm_tune.images import decode
from vlm_tune.leakage.cut import Cut, choose_cut
from vlm_tune.leakage.gathering import Gathered
from vlm_tune.leakage.neighbours import above, centred, top_k
from vlm_tune.leakage.report import LEAKS, LeakPair
from vlm_tune.leakage.verify import Photo, Proof, verify

__all__ = ["Search"]

Array = NDArray[np.float32]
Indices = NDArray[np.int64]
Pair = tuple[int, int]

MAX_ABOVE_CUT = 20
"""Pairs above the cut that are verified for one photo."""
NULL_SAMPLE = 2000
"""Training photos whose nearest training photo is looked up for the cut."""
CACHED_PHOTOS = 4096
"""Decoded photos kept at a time, 0.2 MB each."""


class Search:
    """One check under way. Photos are known by their row in `gathered`.

    Args:
        gathered: The photos of all splits.
        splits: Example id to split.
        shortlist: Most similar photos of each photo that are always verified.

    Raises:
        SplitError: No photo of the training side, or none of the evaluation side, can be read.
    """

    def __init__(self, gathered: Gathered, splits: Mapping[str, SplitName], *, shortlist: int) -> None:
        self._gathered = gathered
        self._shortlist = shortlist
        self._split = tuple(splits[example.id] for example in gathered.examples)
        names = np.array(self._split)
        self._train, self._validation, self._test = (np.flatnonzero(names == name) for name in SPLITS)
        if not len(self._train) or not len(self._validation) + len(self._test):
            side = "evaluation" if len(self._train) else "training"
            raise SplitError(f"no {side} photo can be read: {next(iter(gathered.unreadable.values()), '')}")
        self._mean = np.asarray(gathered.vectors[self._train].mean(axis=0), np.float32)
        self._photo = lru_cache(CACHED_PHOTOS)(self._load)
        self.num_verified = 0

    @cached_property
    def null(self) -> Array:
        """Similarity of up to 2,000 training photos to their nearest other training photo."""
        step = -(-len(self._train) // NULL_SAMPLE)
        queries, references = self._sides(self._train[::step], self._train)
        _, scores = top_k(queries, references, 1, exclude=np.arange(0, len(self._train), step))
        return np.asarray(scores[np.isfinite(scores)], np.float32)

    @cached_property
    def cut(self) -> Cut:
        """From where on a similarity is remarkable."""
        return choose_cut(self.null)

    @cached_property
    def nearest(self) -> Array:
        """Similarity of each evaluation photo to its nearest training photo, validation first."""
        queries, references = self._sides(np.concatenate([self._validation, self._test]), self._train)
        return top_k(queries, references, 1)[1][:, 0]

    @property
    def num_compared(self) -> int:
        """Pairs of photos in different splits."""
        return sum(len(a) * len(b) for a, b in self._plan())

    @property
    def num_above_cut(self) -> int:
        """Those of them whose similarity reaches the cut."""
        if self.cut.value is None:
            return 0
        blocks = (block for a, b in self._plan() for block in above(*self._sides(a, b), self.cut.value))
        return sum(len(scores) for _, _, scores in blocks)

    def across(self) -> tuple[LeakPair, ...]:
        """Return the pairs between splits that are more than a little alike, leaks first."""
        found: dict[Pair, LeakPair] = {}
        for a, b in self._plan():
            found |= self._pairs(a, b)
        least = np.inf if self.cut.value is None else self.cut.value
        kept = [pair for pair in found.values() if pair.tier != "similar_only" or pair.similarity >= least]
        return tuple(sorted(kept, key=LeakPair.rank))

    def within(self, leaked: Iterable[str]) -> tuple[LeakPair, ...]:
        """Return the copies that leaked photos have in their own split, and the copies of those."""
        row_of = {example.id: row for row, example in enumerate(self._gathered.examples)}
        frontier = {row_of[name] for name in leaked}
        seen, links = set(frontier), dict[Pair, LeakPair]()
        while frontier:
            found: dict[Pair, LeakPair] = {}
            for side in (self._validation, self._test):
                found |= self._pairs(np.array([row for row in side if row in frontier], np.int64), side)
            copies = {pair: record for pair, record in found.items() if record.tier in LEAKS}
            links |= {pair: record for pair, record in copies.items() if pair[::-1] not in links}
            frontier = {row for pair in copies for row in pair} - seen
            seen |= frontier
        return tuple(sorted(links.values(), key=LeakPair.rank))

    def _plan(self) -> Iterator[tuple[Indices, Indices]]:
        """The two comparisons between splits; the first of each is the evaluation side."""
        if len(self._validation):
            yield self._validation, self._train
        if len(self._test):
            yield self._test, np.concatenate([self._train, self._validation])

    def _sides(self, a: Indices, b: Indices) -> tuple[list[Array], Array]:
        return self._gathered.views(a, self._mean), centred(self._gathered.vectors[b], self._mean)

    def _pairs(self, a: Indices, b: Indices) -> dict[Pair, LeakPair]:
        """Verify the shortlist of each row of `a` among the rows of `b`."""
        found = self._identical(a, b)
        place = np.full(len(self._gathered), -1, np.int64)
        place[b] = np.arange(len(b))
        rows, take, depth = a, self._shortlist, max(self._shortlist, MAX_ABOVE_CUT)
        while len(rows):
            queries, references = self._sides(rows, b)
            indices, scores = top_k(queries, references, depth, exclude=place[rows])
            wanted = scores >= (np.inf if self.cut.value is None else self.cut.value)
            wanted[:, :take] = np.isfinite(scores[:, :take])
            fresh = {
                (int(rows[query]), int(b[indices[query, rank]])): float(scores[query, rank])
                for query, rank in np.argwhere(wanted)
            }
            found |= self._verified({pair: score for pair, score in fresh.items() if pair not in found})
            # Where most of a shortlist are copies there may be more of them: look deeper.
            rows = _mostly_copies(fresh, found) if take < len(b) else rows[:0]
            take, depth = depth, 4 * depth
        return found

    def _identical(self, a: Indices, b: Indices) -> dict[Pair, LeakPair]:
        of_pixels, of_bytes = self._gathered.pixel_hashes, self._gathered.byte_hashes
        same = defaultdict[str, list[int]](list)
        for row in b:
            same[of_pixels[row]].append(int(row))
        pairs = [(int(x), y) for x in a for y in same[of_pixels[x]] if x != y]
        vectors = self._gathered.vectors
        return {
            (x, y): self._record(
                (x, y),
                similarity=float(centred(vectors[[x]], self._mean)[0] @ centred(vectors[[y]], self._mean)[0]),
                proof=Proof("identical", {"same": "bytes" if of_bytes[x] == of_bytes[y] else "pixels"}),
            )
            for x, y in pairs
        }

    def _verified(self, pairs: Mapping[Pair, float]) -> dict[Pair, LeakPair]:
        def prove(pair: Pair) -> LeakPair:
            proof = verify(self._photo(pair[0]), self._photo(pair[1]))
            return self._record(pair, similarity=pairs[pair], proof=proof)

        found = {}
        with workers() as pool, progress("Verifying pairs", total=len(pairs)) as bar:
            for pair, record in zip(pairs, pool.map(prove, pairs), strict=True):
                found[pair] = record
                bar.advance()
        self.num_verified += len(found)
        return found

    def _load(self, row: int) -> Photo:
        example = self._gathered.examples[row]
        return Photo.of(decode(example.read(), name=example.id))

    def _record(self, pair: Pair, *, similarity: float, proof: Proof) -> LeakPair:
        a, b = (self._gathered.examples[row] for row in pair)
        return LeakPair(
            a_id=a.id,
            a_split=self._split[pair[0]],
            a_label=a.label,
            b_id=b.id,
            b_split=self._split[pair[1]],
            b_label=b.label,
            tier=proof.tier,
            similarity=round(min(1.0, similarity), 4),
            evidence=proof.evidence,
        )


def _mostly_copies(fresh: Iterable[Pair], found: Mapping[Pair, LeakPair]) -> Indices:
    """Rows at least half of whose fresh pairs are copies."""
    tiers: defaultdict[int, list[bool]] = defaultdict(list)
    for pair in fresh:
        tiers[pair[0]].append(found[pair].tier in LEAKS)
    return np.array([row for row, are_copies in tiers.items() if np.mean(are_copies) >= 0.5], np.int64)
