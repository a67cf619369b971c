"""From systems, neighbours, copies and classifiers to how likely each label is wrong, and what speaks against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlm_tune.audit.classifiers import LeastSquares, folds_of, logistic, nearest, votes
from vlm_tune.audit.opinions import Coding, Opinion, opinion_of
from vlm_tune.audit.pooling import Floats, Integers, Pooled, heat, pool
from vlm_tune.audit.suspect import LEAST_SQUARES, LOGISTIC, NEIGHBOURS, Suspect
from vlm_tune.data import Dataset
from vlm_tune.data.splitting import draw
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.leakage import Copies, LeakageReport
from vlm_tune.leakage.links import Links
from vlm_tune.predictors import Predictor
from vlm_tune.records import Example
from vlm_tune.task import Task

__all__ = ["LABEL", "Evidence", "Photos", "Trained", "copies_of", "weigh"]

Trained: TypeAlias = Callable[[Dataset], Predictor]
"""From training examples to what was trained on them."""

LABEL = "the label"
"""What the evidence calls that somebody chose this label, and labels that copies carry."""


class Photos:
    """The photos of an audit, in order.

    Args:
        examples: Photos with their labels.
        task: The question.
        copies: Id to the ids of its copies.
    """

    def __init__(self, examples: Sequence[Example], task: Task, copies: Mapping[str, Sequence[str]]) -> None:
        self.examples, self.task, self.copies = tuple(examples), task, copies
        self.ids = [example.id for example in examples]
        self.words = [example.label for example in examples]
        self.places = {name: at for at, name in enumerate(self.ids)}
        self.coding = Coding(task)
        self.labels = self.coding.encode(self.words)

    @cached_property
    def units(self) -> Integers:
        """Number of each photo's unit: itself, its copies and its group, whose labels are no independent word."""
        links = Links[str]()
        for name, others in self.copies.items():
            links.join_all([name, *others])
        first: dict[str, str] = {}
        for example in self.examples:
            if example.group is not None:
                links.join(first.setdefault(example.group, example.id), example.id)
        roots = [links.root(name) for name in self.ids]
        number = {root: at for at, root in enumerate(dict.fromkeys(roots))}
        return np.array([number[root] for root in roots], np.int64)

    def copied(self, question: int) -> NDArray[np.bool_]:
        """Return whether a copy of each photo carries each answer other than its own, shape (n, K)."""
        found = np.zeros((len(self.ids), self.coding.num_answers), bool)
        for name, others in self.copies.items():
            if name in self.places:
                theirs = self.labels[question, [self.places[other] for other in others if other in self.places]]
                found[self.places[name], theirs] = True
        found[np.arange(len(self.ids)), self.labels[question]] = False
        return found

    @property
    def margins(self) -> Floats:
        """How clearly annotators agreed on each label, where the examples say so as `vote_margin`; else 1."""
        said = [example.metadata.get("vote_margin") for example in self.examples]
        return np.array([float(one) if isinstance(one, int | float) else 1.0 for one in said])


@dataclass(frozen=True)
class Evidence:
    """Everything that was said about the photos, and what it amounts to.

    Attributes:
        photos: The photos.
        opinions: What was said, pooled.
        pooled: The result, one for each question.
        near: Places of each photo's nearest photos, shape (n, 10), or nothing.
    """

    photos: Photos
    opinions: tuple[Opinion, ...]
    pooled: tuple[Pooled, ...]
    near: Integers | None

    def suspects(self) -> Iterator[Suspect]:
        """Yield what is known about each photo, in order."""
        photos, labels = self.photos, self.photos.labels
        odds = np.stack([one.log_odds(own) for one, own in zip(self.pooled, labels, strict=True)])
        # Wrong is what is wrong in one answer or more; for one question these are its own log-odds.
        wrong = np.logaddexp(0, odds).sum(axis=0)
        wrong += np.log(-np.expm1(-wrong))
        others = self._suggested(odds)
        said = [(one.name, *one.answers()) for one in self.opinions]
        for at, name in enumerate(photos.ids):
            answers = {
                source: (photos.coding.decode(found[:, at].tolist()), float(np.prod(sure[:, at])))
                for source, found, sure in said
                if (found[:, at] >= 0).all()
            }
            yield Suspect(
                example_id=name,
                label=photos.words[at],
                suggestion=photos.coding.decode(others[:, at].tolist()),
                log_odds=float(wrong[at]),
                answers={source: answer for source, (answer, _) in answers.items()},
                probabilities={source: share for source, (_, share) in answers.items()},
                evidence=self._evidence(at, others[:, at]),
                neighbours=self._votes(at),
                copies={other: photos.words[photos.places[other]] for other in self._copies(name)},
            )

    def _suggested(self, odds: Floats) -> Integers:
        """Return for each photo the likeliest answers that are not all its label's, shape (Q, n)."""
        labels = self.photos.labels
        if len(labels) == 1:
            rows = self.pooled[0].posterior.copy()
            rows[np.arange(labels.shape[1]), labels[0]] = -np.inf
            return np.asarray(rows.argmax(axis=1)[None])
        doubted = odds > 0
        doubted[odds.argmax(axis=0), np.arange(odds.shape[1])] = True
        return np.where(doubted, 1 - labels, labels)

    def _evidence(self, at: int, other: Integers) -> dict[str, float]:
        own = self.photos.labels[:, at]
        terms = {
            opinion.name: sum(
                float(pooled.weights[number] * (rows[at, new] - rows[at, old]))
                for pooled, rows, new, old in zip(self.pooled, opinion.scores, other, own, strict=True)
            )
            for number, opinion in enumerate(self.opinions)
        }
        terms[LABEL] = sum(
            float(pooled.channel[at, new] - pooled.channel[at, old])
            for pooled, new, old in zip(self.pooled, other, own, strict=True)
        )
        return terms

    def _votes(self, at: int) -> dict[str, int]:
        if self.near is None:
            return {}
        names = [self.photos.words[place] for place in self.near[at].tolist() if place >= 0]
        return {
            label: names.count(label) for label in sorted(set(names), key=lambda label: (-names.count(label), label))
        }

    def _copies(self, name: str) -> list[str]:
        return [other for other in self.photos.copies.get(name, ()) if other in self.photos.places and other != name]


def weigh(
    photos: Photos,
    evaluations: Sequence[Evaluation],
    *,
    vectors: NDArray[np.float32] | None,
    folds: int,
    trained_by: Trained | None,
) -> Evidence:
    """Gather what there is to know about the photos, and pool it.

    Once it is known how likely each label is, least squares and neighbours learn from that instead of from the labels
    and everything is pooled again: what is wrong misleads them less.

    Args:
        photos: The photos.
        evaluations: What systems said about some of them or all.
        vectors: Their embeddings, shape (n, D); without them nobody but the systems is asked.
        folds: Folds of the classifiers; 0 for none.
        trained_by: Trains a further predictor without each fold.
    """
    said = [opinion_of(one, photos.coding, photos.places, photos.labels) for one in evaluations]
    if folds:
        places = folds_of(photos.units, [draw(0, name) for name in photos.ids], folds)
        if vectors is not None:
            said.append(_logistic(photos, vectors, places))
        if trained_by is not None:
            said.append(_trained(photos, trained_by, places))
    if vectors is None:
        return Evidence(photos, tuple(said), _pooled(photos, said), None)
    near = nearest(vectors, photos.units)
    squares = LeastSquares(vectors, photos.units) if folds else None
    beliefs = [np.eye(photos.coding.num_answers)[own] for own in photos.labels]
    for _ in range(2):
        opinions = [*said, Opinion(NEIGHBOURS, np.stack([votes(near, one) for one in beliefs]))]
        if squares is not None:
            found = zip(map(squares.scores, beliefs), photos.labels, strict=True)
            opinions.append(Opinion(LEAST_SQUARES, np.stack([heat(scores, own) * scores for scores, own in found])))
        pooled = _pooled(photos, opinions)
        beliefs = [np.exp(one.posterior) for one in pooled]
    return Evidence(photos, tuple(opinions), pooled, near)


def _pooled(photos: Photos, opinions: Sequence[Opinion]) -> tuple[Pooled, ...]:
    margins = photos.margins
    return tuple(
        pool([one.scores[question] for one in opinions], own, copied=photos.copied(question), margin=margins)
        for question, own in enumerate(photos.labels)
    )


def _logistic(photos: Photos, vectors: NDArray[np.float32], folds: Integers) -> Opinion:
    size = photos.coding.num_answers
    return Opinion(LOGISTIC, np.stack([logistic(vectors, own, size, folds) for own in photos.labels]))


def _trained(photos: Photos, trained_by: Trained, folds: Integers) -> Opinion:
    everything = Dataset(photos.examples, task=photos.task)
    scores, name = np.zeros((*photos.labels.shape, photos.coding.num_answers)), ""
    for fold in range(int(folds.max()) + 1):
        held = {photos.ids[at] for at in np.flatnonzero(folds == fold).tolist()}
        predictor = trained_by(everything.without(held))
        evaluation = Evaluator(everything.without(set(photos.ids) - held)).run(predictor)
        scores += opinion_of(evaluation, photos.coding, photos.places, photos.labels).scores
        name = f"{predictor.name}, out of fold"
    return Opinion(name, scores)


def copies_of(found: LeakageReport | Copies | None) -> dict[str, tuple[str, ...]]:
    """Return each photo's copies: what a leak check or a search for copies proved by the pixels."""
    if found is None:
        return {}
    links = Links[str](
        (pair.a_id, pair.b_id)
        for pair in (*found.pairs, *(found.within if isinstance(found, LeakageReport) else ()))
        if pair.is_copy
    )
    for same in found.identical if isinstance(found, LeakageReport) else found.groups:
        links.join_all(same)
    return {name: tuple(other for other in group if other != name) for group in links.groups() for name in group}
