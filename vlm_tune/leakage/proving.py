"""Pairs of photos and their proofs: each pair's pixels are compared once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from vlm_tune._console import progress
from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import workers
from vlm_tune.images import decode, probe
from vlm_tune.leakage.aligning import Photo
from vlm_tune.leakage.neighbours import Pairs, above, centred, top_k
from vlm_tune.leakage.pairs import COPIES, LeakPair, Rule
from vlm_tune.leakage.photos import Distinct
from vlm_tune.leakage.verify import Proof, Tier, verify
from vlm_tune.leakage.voting import vote
from vlm_tune.records import Example

__all__ = ["Indices", "Pair", "Prover", "Scores"]

Scores = NDArray[np.float64]
Indices = NDArray[np.int64]
Pair = tuple[int, int]

CACHED_PHOTOS = 2048
"""Decoded photos kept at a time, some 0.4 MB each with their features."""


class Prover:
    """The photos of a check by their row, how alike they are, and what their pixels prove.

    Args:
        photos: The photos, equal ones once.
        split_of: Example id to split, or to None where there is none.
        mean: What is subtracted from all embeddings, shape (D,).
    """

    def __init__(
        self, photos: Distinct, split_of: Callable[[str], SplitName | None], *, mean: NDArray[np.float32]
    ) -> None:
        self._gathered = photos.gathered
        self._mean = mean
        self._photo = lru_cache(CACHED_PHOTOS)(self._load)
        self._size = lru_cache(None)(self._measure)
        self._proofs: dict[Pair, Proof] = {}
        self._members: dict[int, dict[SplitName | None, list[Example]]] = {}
        rows: dict[SplitName | None, list[int]] = {}
        for row, examples in photos.members.items():
            here = self._members.setdefault(row, {})
            for example in examples:
                here.setdefault(split_of(example.id), []).append(example)
            for split in here:
                rows.setdefault(split, []).append(row)
        self.rows = {split: np.array(found, np.int64) for split, found in rows.items()}
        """Split to the rows of its distinct photos."""
        self.row_of = {example.id: row for row, examples in photos.members.items() for example in examples}
        """Example id to the row of its pixels."""
        self.num_verified = 0

    def nearest(
        self, a: Indices, b: Indices, k: int, *, itself: bool = False, mirrored: bool = True
    ) -> tuple[Indices, Scores]:
        """Return for each row of `a` its k most similar rows of `b`, as rows, with their similarity.

        Args:
            a: Rows, shape (N,).
            b: Rows, shape (M,).
            k: How many.
            itself: Whether a row that is in both may be its own neighbour.
            mirrored: Whether the better of both orientations counts.
        """
        place = np.full(len(self._gathered), -1, np.int64)
        place[b] = np.arange(len(b))
        views = self._gathered.views(a, self._mean)
        references = centred(self._gathered.vectors[b], self._mean)
        found, scores = top_k(views if mirrored else views[:1], references, k, exclude=None if itself else place[a])
        return b[found], scores

    def sharing(self, a: Indices, b: Indices, k: int) -> Indices:
        """Return for each row of `a` the k rows of `b` that share most of its details, -1 where there are fewer."""
        return vote(self._gathered.details, a, b, k)[0]

    def similarities(self, a: Indices, b: Indices) -> Scores:
        """Return how alike each row of `a` and the row of `b` at the same place are, in the better orientation."""
        found = np.full(len(a), -np.inf)
        for start in range(0, len(a), 4096):
            part = slice(start, start + 4096)
            references = centred(self._gathered.vectors[b[part]], self._mean).astype(np.float64)
            for view in self._gathered.views(a[part], self._mean):
                found[part] = np.maximum(found[part], (view * references).sum(axis=1))
        return found

    def above(self, rows: Indices, threshold: float) -> Iterator[Pairs]:
        """Yield the pairs among some rows that reach a threshold, by their places in `rows`, some at a time."""
        vectors = centred(self._gathered.vectors[rows], self._mean)
        return above([vectors], vectors, threshold, within=True)

    def cosines(self, a: Indices, b: Indices) -> NDArray[np.float64]:
        """Return the cosine of each row of `a` with the row of `b` at the same place, in float64."""
        found = np.ones(len(a))
        for start in range(0, len(a), 4096):
            part = slice(start, start + 4096)
            one, other = (self._gathered.vectors[rows[part]].astype(np.float64) - self._mean for rows in (a, b))
            norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
            found[part] = (one * other).sum(axis=1) / np.maximum(norms, 1e-12)
        return np.where(a == b, 1.0, found)

    def tier(self, pair: Pair) -> Tier:
        """Return what was proved about a pair, in whichever order; a row and itself are identical."""
        proof = self._proofs.get(pair) or self._proofs.get(pair[::-1])
        return "identical" if pair[0] == pair[1] else "similar_only" if proof is None else proof.tier

    def is_copy(self, pair: Pair) -> bool:
        """Return whether a pair was proved to be copies."""
        return self.tier(pair) in COPIES

    def prove(self, pairs: Iterable[Pair]) -> None:
        """Compare the pixels of those pairs that were not compared before, in either order."""
        fresh = [pair for pair in dict.fromkeys(pairs) if not {pair, pair[::-1]} & self._proofs.keys()]
        if not fresh:
            return
        with workers() as pool, progress("Verifying pairs", total=len(fresh)) as bar:
            for pair, proof in zip(fresh, pool.map(self._proved, fresh), strict=True):
                self._proofs[pair] = proof
                bar.advance()
        self.num_verified += len(fresh)

    def count(self, row: int, split: SplitName | None) -> int:
        """Return how many examples of a split have the pixels of a row."""
        return len(self._members[row].get(split, ()))

    def record(
        self,
        pair: Pair,
        splits: tuple[SplitName | None, SplitName | None],
        *,
        similarity: float,
        rule: Rule = "pixels",
    ) -> LeakPair:
        """Return what is known about a pair; its first photo is from the first split, its second from the second.

        A row paired with itself stands for examples with equal pixels: one of each split, or two of one.
        """
        x, y = pair
        ours, theirs = self._members[x][splits[0]], self._members[y][splits[1]]
        a, b = ours[0], theirs[1] if x == y and splits[0] == splits[1] else theirs[0]
        proof = self._same(a, b, len({one.id for one in (*ours, *theirs)})) if x == y else self._directed(pair)
        return LeakPair(
            a_id=a.id,
            a_split=splits[0],
            a_label=a.label,
            b_id=b.id,
            b_split=splits[1],
            b_label=b.label,
            tier=proof.tier,
            similarity=round(min(1.0, similarity), 4),
            rule=rule,
            copies=(len(ours), len(theirs)),
            evidence=self._with_sizes(pair, proof.evidence),
        )

    def _same(self, a: Example, b: Example, count: int) -> Proof:
        same = "bytes" if a.content_hash == b.content_hash else "pixels"
        return Proof("identical", {"same": same, "count": count})

    def _directed(self, pair: Pair) -> Proof:
        """The proof of a pair in this order; what was proved the other way round is asked again."""
        if pair not in self._proofs and pair[::-1] in self._proofs:
            turned = self._proved(pair)
            # Either order may prove it; evidence that points the wrong way is worse than none.
            tier = self._proofs[pair[::-1]].tier
            self._proofs[pair] = turned if turned.tier == tier else Proof(tier, {})
        return self._proofs.get(pair) or Proof("similar_only", {})

    def _proved(self, pair: Pair) -> Proof:
        return verify(self._photo(pair[0]), self._photo(pair[1]))

    def _with_sizes(self, pair: Pair, evidence: Mapping[str, object]) -> dict[str, object]:
        if "transform" not in evidence:
            return dict(evidence)
        return {**evidence, "sizes": [list(self._size(row)) for row in pair]}

    def _measure(self, row: int) -> tuple[int, int]:
        info = probe(self._gathered.examples[row].image)
        return info.width, info.height

    def _load(self, row: int) -> Photo:
        example = self._gathered.examples[row]
        return Photo.of(decode(example.read(), name=example.id))
