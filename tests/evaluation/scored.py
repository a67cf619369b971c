"""Evaluations with probabilities, times and costs, drawn; nothing is asked."""

from __future__ import annotations

import numpy as np

from vlm_tune.evaluation import Evaluation
from vlm_tune.evaluation.columns import row_of, table_of
from vlm_tune.records import Example, Prediction

CLASSES = ("crack", "dent", "scratch")


def scored(
    name: str,
    n: int = 200,
    *,
    skill: float = 2.0,
    sharp: float = 1.0,
    seed: int = 0,
    photos: str = "test",
    cost: float | None = None,
    with_scores: bool = True,
    twins: bool = False,
    classes: tuple[str, ...] = CLASSES,
) -> Evaluation:
    """Return answers to n photos: the same photos for the same `photos`, the same answers for the same seed.

    Args:
        name: The system.
        n: Photos.
        skill: How far the true class is ahead, in logits.
        sharp: What the logits are multiplied with: how sure of itself the system is.
        seed: Of the answers.
        photos: Fingerprint of the photos, whose truth and ease follow from it.
        cost: Dollars an answer costs on average; None for nothing.
        with_scores: Whether answers have probabilities.
        twins: Whether photos come in groups of two.
        classes: The order of the classes.
    """
    of_photos = np.random.default_rng(list(photos.encode()))
    truth, ease = of_photos.integers(0, 3, n), of_photos.standard_normal(n)
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((n, 3))
    logits[np.arange(n), truth] += skill + ease
    log = sharp * logits
    log -= np.log(np.exp(log).sum(axis=1, keepdims=True))
    rows = []
    for at in range(n):
        example = Example(id=f"{at}.jpg", image=b"x", label=CLASSES[truth[at]], group=f"{at // 2}" if twins else None)
        scores = dict(zip(CLASSES, log[at].tolist(), strict=True)) if with_scores else None
        label = CLASSES[int(log[at].argmax())]
        prediction = Prediction(
            example_id=example.id,
            outcome="answered",
            label=label,
            raw=label,
            scores=scores,
            latency_s=0.1 * float(rng.lognormal(0, 0.2)),
            cost_usd=None if cost is None else cost * float(rng.lognormal(0, 0.3)),
        )
        rows.append(row_of(example, prediction, classes, content_hash=f"{photos}-{at}"))
    return Evaluation(
        name=name,
        classes=classes,
        table=table_of(rows),
        predictor_fingerprint=name,
        dataset_fingerprint=photos,
    )


def many_labels(name: str, n: int = 120, *, flips: float = 0.1, seed: int = 0) -> Evaluation:
    """Return answers of a system to photos that may show several classes, with a probability of each class."""
    truth = np.random.default_rng(9).random((n, 3)) < 0.4
    rng = np.random.default_rng(seed)
    sure = np.clip(rng.beta(8, 1, (n, 3)), 0.51, 0.999)
    said = np.where(rng.random((n, 3)) < flips, ~truth, truth)
    p = np.where(said, sure, 1 - sure)
    rows = []
    for at in range(n):
        labels = [", ".join(np.array(CLASSES)[row]) or "none" for row in (truth[at], said[at])]
        example = Example(id=f"{at}.jpg", image=b"x", label=labels[0])
        scores = dict(zip(CLASSES, np.log(p[at]).tolist(), strict=True))
        prediction = Prediction(example_id=example.id, outcome="answered", label=labels[1], scores=scores)
        rows.append(row_of(example, prediction, CLASSES, content_hash=None))
    return Evaluation(
        name=name,
        classes=CLASSES,
        table=table_of(rows),
        predictor_fingerprint=name,
        dataset_fingerprint="several",
        multi_label=True,
    )
