"""In which order the examples of an epoch come, and how much each of them counts."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from vlm_tune.errors import TrainingError, nearest

__all__ = ["epoch_order", "example_weights"]


def epoch_order(
    labels: Sequence[str], *, sampling: Literal["shuffled", "balanced"], seed: int, epoch: int
) -> list[int]:
    """Return the examples of an epoch in order, by their places; a matter of seed and epoch alone.

    Args:
        labels: Label of each example.
        sampling: `shuffled` takes every example once. `balanced` takes as many, and every label equally often (give
            or take one): the photos of a rare label come again, none more than once more than another, and those of a
            big label take turns over the epochs.
        seed: Seed of the training.
        epoch: Number of the pass, from 0.

    Examples:
        >>> labels = ["crack"] * 6 + ["dent"] * 2
        >>> order = epoch_order(labels, sampling="balanced", seed=0, epoch=0)
        >>> Counter(labels[place] for place in order)
        Counter({'dent': 4, 'crack': 4})
    """
    order = list(range(len(labels))) if sampling == "shuffled" else _balanced(labels, seed=seed, epoch=epoch)
    random.Random(f"{seed} {epoch}").shuffle(order)
    return order


def example_weights(
    labels: Sequence[str], class_weights: Literal["balanced"] | Mapping[str, float] | None
) -> list[float]:
    """Return how much each example's loss counts; 1 on average.

    Args:
        labels: Label of each example.
        class_weights: Weight of each label, 1 for those it leaves out; `balanced` takes 1 over the label's count;
            None weighs all examples alike.

    Raises:
        TrainingError: No example has a label that is given a weight; the message names the nearest ones.

    Examples:
        >>> example_weights(["crack", "crack", "crack", "dent"], "balanced")
        [0.6666666666666666, 0.6666666666666666, 0.6666666666666666, 2.0]
    """
    if class_weights is None:
        return [1.0] * len(labels)
    counts = Counter(labels)
    if isinstance(class_weights, str):
        weights = {label: 1 / count for label, count in counts.items()}
    else:
        _check_known(class_weights, counts)
        weights = {label: class_weights.get(label, 1.0) for label in counts}
    mean = sum(count * weights[label] for label, count in counts.items()) / len(labels)
    return [weights[label] / mean for label in labels]


def _balanced(labels: Sequence[str], *, seed: int, epoch: int) -> list[int]:
    # As if all epochs were dealt in one go: places go round the labels, and those of a label round its photos.
    photos: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        photos.setdefault(label, []).append(place)
    circles = list(photos.values())
    dealer = random.Random(f"{seed}")
    for circle in circles:
        dealer.shuffle(circle)
    dealer.shuffle(circles)
    turns = range(epoch * len(labels), (epoch + 1) * len(labels))
    chosen = ((circles[turn % len(circles)], turn // len(circles)) for turn in turns)
    return [circle[round_ % len(circle)] for circle, round_ in chosen]


def _check_known(class_weights: Mapping[str, float], counts: Mapping[str, int]) -> None:
    for label in class_weights:
        if label not in counts:
            close = nearest(label, counts)
            hint = f"did you mean {' or '.join(close)}?" if close else f"they have {', '.join(sorted(counts))}"
            raise TrainingError(f"TrainConfig.class_weights names {label!r}, a label of no training example; {hint}")
