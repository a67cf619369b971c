"""A shortlist by details: whatever part of a photo another one shows, its features are there again.

An embedding describes a whole photo, and a border, a caption or a crop changes the whole. Here every landmark
of a photo votes for the photos where it is found again. Landmarks are grouped by the nearest of some visual
words, and compared closely only with those of the same few words (an inverted file: J. Sivic and A. Zisserman,
ICCV 2003). A match weighs the less the more photos it matches, for what is in every photo of a set says nothing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlm_tune._console import progress
from vlm_tune.embedding import LANDMARKS, MIRROR, workers

__all__ = ["Details", "vote"]

Array = NDArray[np.float32]
Marks = NDArray[np.uint8]
Scores = NDArray[np.float64]
Indices = NDArray[np.int64]

PROBED = 3
"""Words whose landmarks a landmark is compared with: its own, and the next ones, beyond whose border it may lie."""
LEAST_MATCH = 0.85
"""Cosine of two descriptors below which they say nothing: those of one spot have about 0.95, of two spots 0.6."""
WIDTH = 0.03
"""How far below 1 a match has lost two thirds of its weight."""
FAINT = 0.05
"""Weight of all matches of a landmark below which none counts fully: a faint match is not a rare one."""
QUERIES = 64
"""Photos whose landmarks one thread compares at a time."""
LENGTH = 512
"""Norm of a descriptor in bytes."""
BLOCK = 4096
"""Landmarks whose words are looked up at a time."""


class Details:
    """The landmarks of some photos (see `vlm_tune.embedding.landmarks`).

    Args:
        descriptors: Theirs, best first, zero beyond a photo's own number, shape (N, 64, 128).
        counts: How many each photo has, shape (N,).
    """

    def __init__(self, descriptors: Marks, counts: Indices) -> None:
        self._descriptors = descriptors
        self._counts = counts

    def __len__(self) -> int:
        return len(self._counts)

    def of(self, rows: Indices) -> tuple[Marks, Indices]:
        """Return the landmarks of some photos, shape (n, 128), and for each the place of its photo in `rows`."""
        there = np.arange(LANDMARKS) < self._counts[rows, None]
        return self._descriptors[rows][there], np.nonzero(there)[0]


def vote(details: Details, a: Indices, b: Indices, k: int) -> tuple[Indices, Scores]:
    """Return for each photo of `a` the k photos of `b` that most of its details speak for, best first.

    A photo counts in the better of its two orientations. It takes some 300 bytes for each landmark of `b`.

    Args:
        details: The landmarks of all photos.
        a: Rows of the photos in question, shape (N,).
        b: Rows of those to choose from, shape (M,); a photo never votes for itself.
        k: How many.

    Returns:
        Rows (N, k), and votes (N, k); no votes, and row -1, where fewer photos got any.
    """
    index = _InvertedFile(*details.of(b), num_photos=len(b))
    place = dict(zip(b.tolist(), range(len(b)), strict=True))
    own = np.array([place.get(row, -1) for row in a.tolist()], np.int64)

    def best(start: int) -> tuple[Indices, Scores]:
        part = slice(start, start + QUERIES)
        marks, askers = details.of(a[part])
        votes = np.maximum(index.count(marks, askers, own[part]), index.count(marks[:, MIRROR], askers, own[part]))
        # Sums differ in their last digits with the company a photo is counted in; ties must not.
        votes = votes.round(5)
        order = np.argsort(-votes, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(votes, order, axis=1)

    found, votes = np.full((len(a), k), -1, np.int64), np.zeros((len(a), k))
    starts = range(0, len(a), QUERIES)
    with workers() as pool, progress("Comparing details", total=len(a)) as bar:
        for start, (places, counted) in zip(starts, pool.map(best, starts), strict=True):
            part = slice(start, start + len(places)), slice(places.shape[1])
            found[part], votes[part] = np.where(counted > 0, b[places], -1), counted
            bar.advance(len(places))
    return found, votes


class _Matches(NamedTuple):
    marks: Indices
    """Query landmarks, shape (P,)."""
    photos: Indices
    """Photos in which they are found again."""
    weights: Array
    """How surely, 0 to 1."""


class _InvertedFile:
    """The landmarks of the photos to choose from, by visual word."""

    def __init__(self, marks: Marks, owners: Indices, *, num_photos: int) -> None:
        self._num_photos = num_photos
        self._words = _vocabulary(marks)
        words = _nearest_words(marks, self._words, 1)[:, 0]
        order = np.argsort(words, kind="stable")
        self._marks, self._owners = marks[order], owners[order]
        self._borders = _borders(words[order], len(self._words))

    def count(self, marks: Marks, askers: Indices, own: Indices) -> Scores:
        """Return the votes of each asking photo for each photo, shape (len(own), num_photos).

        Args:
            marks: Landmarks, shape (n, 128).
            askers: The asking photo of each, counted from 0, shape (n,).
            own: The photo that is the asking photo itself, or -1, for each.
        """
        found = _best_in_photo(self._matches(marks), self._num_photos)
        foreign = found.photos != own[askers[found.marks]]
        marks_, photos, weights = (column[foreign] for column in found)
        together = np.bincount(marks_, weights, minlength=len(askers))
        votes = weights.astype(np.float64) ** 2 / (together[marks_] + FAINT)
        places = askers[marks_] * self._num_photos + photos
        counted = np.bincount(places, votes, minlength=len(own) * self._num_photos).astype(np.float64)
        return counted.reshape(len(own), self._num_photos)

    def _matches(self, marks: Marks) -> _Matches:
        """Compare landmarks with those of their words, one word at a time."""
        words = _nearest_words(marks, self._words, PROBED)
        order = np.argsort(words.ravel(), kind="stable")
        asking, borders = order // words.shape[1], _borders(words.ravel()[order], len(self._words))
        parts = [_Matches(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
        for word in np.flatnonzero(np.diff(borders) * np.diff(self._borders)):
            here, there = (slice(*of[word : word + 2]) for of in (borders, self._borders))
            scores = _cosines(marks[asking[here]], self._marks[there])
            rows, columns = np.nonzero(scores >= LEAST_MATCH)
            weights = np.exp((scores[rows, columns] - 1) / np.float32(WIDTH))
            parts.append(_Matches(asking[here][rows], self._owners[there][columns], weights))
        return _Matches(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _best_in_photo(matches: _Matches, num_photos: int) -> _Matches:
    """Keep one match of each landmark in each photo, the best: repeated patterns have one vote."""
    keys = matches.marks * num_photos + matches.photos
    order = np.argsort(keys, kind="stable")
    firsts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    weights = np.maximum.reduceat(matches.weights[order], firsts) if len(firsts) else matches.weights
    return _Matches(matches.marks[order][firsts], matches.photos[order][firsts], weights)


def _vocabulary(marks: Marks) -> Marks:
    """Choose visual words: landmarks picked evenly, moved twice to the middle of those nearest to them."""
    if not len(marks):
        return np.zeros((1, 128), np.uint8)
    size = round(3 * math.sqrt(len(marks)))
    sample = marks[:: max(1, len(marks) // (32 * size))]
    words = sample[np.linspace(0, len(sample) - 1, min(size, len(sample))).astype(int)]
    for _ in range(2):
        # Photos in many copies would otherwise give the same word many times.
        words = np.unique(words, axis=0)
        nearest = _nearest_words(sample, words, 1)[:, 0]
        order = np.argsort(nearest, kind="stable")
        present, firsts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order].astype(np.float32), firsts, axis=0)
        means = LENGTH * sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1)
        words[present] = np.minimum(np.rint(means), 255).astype(np.uint8)
    return np.unique(words, axis=0)


def _nearest_words(marks: Marks, words: Marks, count: int) -> Indices:
    """Return the `count` nearest words of each landmark, in no order, shape (n, count)."""
    count = min(count, len(words))
    axes = words.astype(np.float32).T
    parts = [np.zeros((0, count), np.int64)]
    for start in range(0, len(marks), BLOCK):
        scores = marks[start : start + BLOCK].astype(np.float32) @ axes
        parts.append(np.argpartition(-scores, count - 1, axis=1)[:, :count])
    return np.concatenate(parts)


def _cosines(first: Marks, second: Marks) -> Array:
    """Return all cosines between two sets of landmarks.

    Products of bytes have exact sums in single precision, up to 2**24: no score depends on what else is compared.
    """
    one, other = first.astype(np.float32), second.astype(np.float32)
    norms = np.outer(np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1))
    return np.asarray(np.minimum(one @ other.T / np.maximum(norms, 1), 1), np.float32)


def _borders(words: Indices, num_words: int) -> Indices:
    """Return where the landmarks of each word begin, and after the last word where they end."""
    return np.searchsorted(words, np.arange(num_words + 1)).astype(np.int64)
