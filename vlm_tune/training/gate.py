"""Running the overfit gate: ten examples by heart, then what the model answers, and what it looks at."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlm_tune import images
from vlm_tune.errors import TrainingError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.attach import fresh
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.merging.probe import score_photos
from vlm_tune.training.overfit import GateCheck, OverfitReport
from vlm_tune.training.proving.checks import audit_tokens
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.loop import Job, train
from vlm_tune.vlm.prompts import answer_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vlm_tune.images import EncodedImage
    from vlm_tune.vlm import Resident

__all__ = ["balanced", "choose", "overfit"]

_LEARNT = 0.01
"""Training stops once the loss of every batch is below this (nats per token), two passes long: the last steps of
one pass can undo what its first ones have shown."""

_ABOUT_ZERO = 0.05
"""Largest loss, through the scoring of evaluation, that counts as learnt by heart: p = 0.95 a token."""

_BETTER_THAN_CHANCE = 0.05
"""Level of the exact one-sided binomial test on the blanks."""

_PLAIN: dict[str, object] = {
    "lr_scheduler": "constant",
    "label_smoothing": 0.0,
    "class_weights": None,
    "sampling": "shuffled",
    "keep": "last",
    "patience": None,
    "report_to": (),
    "augment": None,
}
"""What the gate changes in the configuration: a smoothed or weighted loss cannot reach 0, nor one of mixed photos."""

_HINTS = {
    "loss": "raise the learning rate or max_steps, adapt more regions, and look for photos that are nearly "
    "the same but have different labels",
    "answers": "the loss fell but scoring disagrees: look at the labels, and at prompts that differ between "
    "training and evaluation",
    "swapped": "the answers do not follow the photos: look for images that get lost or mixed up in a batch",
    "blanks": "the classes can be told without seeing anything: look for sizes or proportions that differ "
    "between the classes, and bring all photos to one size",
}


def balanced(examples: Sequence[Example], n: int, *, seed: int) -> list[Example]:
    """Return up to `n` examples with the classes as even as they can be, and no photo twice.

    Examples:
        >>> photos = [Example(id=f"{i}", image=bytes([i]), label="a" if i else "b") for i in range(9)]
        >>> [example.label for example in balanced(photos, 4, seed=0)]
        ['b', 'a', 'a', 'a']
    """
    shuffled = list(examples)
    random.Random(seed).shuffle(shuffled)
    queues: dict[str, list[Example]] = {}
    for example in shuffled:
        queues.setdefault(example.label, []).append(example)
    chosen: dict[str, Example] = {}
    # The rarest class first, so that it is there even when there are more classes than places.
    order = sorted(queues, key=lambda label: (len(queues[label]), label))
    while len(chosen) < n and any(queues.values()):
        for label in order:
            if queues[label] and len(chosen) < n:
                example = queues[label].pop()
                chosen.setdefault(example.content_hash, example)
    return list(chosen.values())


def overfit(
    resident: Resident,
    config: TrainConfig,
    examples: Sequence[Example],
    task: Task,
    *,
    max_steps: int,
    skeleton: PreTrainedModel,
) -> OverfitReport:
    """Train a throw-away adapter on a few examples, and look at what it answers.

    The configuration's learning rate is used as it is, without decay. The answers come from the scoring that
    evaluation uses; those of a multi-label task must be right as a whole, and where they are too many to score all,
    they are told from `Task.candidates`. The base model is unchanged afterwards.

    Args:
        resident: The loaded base model.
        config: The configuration of the training to come.
        examples: A handful, of at least two classes; see `balanced`.
        task: The question.
        max_steps: Most optimizer steps.
        skeleton: The base model without weights, from which memory is planned.
    """
    batches = Batches(
        examples,
        processor=resident.processor,
        task=task,
        dtype=resident.dtype,
        device=resident.device,
        kept=resident.kept,
    )
    audit_tokens(batches, resident.model.config, batch_size=config.batch_size)
    constant = config.model_copy(update=_PLAIN)
    one_pass = constant.steps_per_epoch(len(examples))
    targets = resident.family.target_modules(config.regions, config.kinds)
    with resident.adapted(fresh(constant, targets)) as wrapped:
        job = Job(
            resident=resident,
            wrapped=wrapped,
            batches=batches,
            config=constant,
            title=f"Overfitting {len(examples)} examples",
            max_steps=max_steps,
            skeleton=skeleton,
            enough=lambda losses: len(losses) >= 2 * one_pass and max(losses[-2 * one_pass :]) < _LEARNT,
        )
        history = train(job)
        found = _answers(resident, examples, task)
    checks = _judge(found, len(examples))
    return OverfitReport(
        num_examples=len(examples),
        example_ids=tuple(example.id for example in examples),
        num_steps=len(history.losses),
        losses=tuple(history.losses),
        final_loss=found.loss,
        num_correct=found.right,
        num_swapped_correct=found.swapped_right,
        num_blank_correct=found.blank_right,
        blank_limit=found.blank_limit,
        checks=checks,
        seconds=history.seconds,
    )


@dataclass(frozen=True)
class _Found:
    loss: float
    right: int
    swapped_right: int
    blank_right: int
    blank_limit: int
    mistakes: tuple[str, ...]


def _answers(resident: Resident, examples: Sequence[Example], task: Task) -> _Found:
    import torch

    photos = [images.encode(example.image, max_pixels=task.max_pixels) for example in examples]
    labels = task.candidates(example.label for example in examples)
    truth = torch.tensor([labels.index(example.label) for example in examples])
    lengths = torch.tensor([len(answer_ids(resident.processor, example.label)) for example in examples])
    order = _swap(truth.tolist())
    scores = score_photos(resident, [photo.data for photo in photos], task, labels)
    swapped = score_photos(resident, [photos[index].data for index in order], task, labels)
    blanks = score_photos(resident, [_blank(photo, task) for photo in photos], task, labels)
    wrong = (scores.argmax(-1) != truth).nonzero().flatten().tolist()
    return _Found(
        loss=float((-scores.gather(-1, truth[:, None])[:, 0] / lengths).mean()),
        right=len(examples) - len(wrong),
        swapped_right=int((swapped.argmax(-1) == truth[order]).sum()),
        blank_right=int((blanks.argmax(-1) == truth).sum()),
        blank_limit=_chance_limit(truth.tolist()),
        mistakes=tuple(examples[index].id for index in wrong),
    )


def _blank(photo: EncodedImage, task: Task) -> bytes:
    return images.encode(images.blank(photo.width, photo.height), max_pixels=task.max_pixels).data


def _swap(truth: Sequence[int]) -> list[int]:
    """Return an order in which as many places as possible hold a photo of another class.

    Sorted by class and turned by the biggest class's size, no photo meets its own class unless that class is
    more than half of them.
    """
    by_class = sorted(range(len(truth)), key=lambda index: truth[index])
    shift = max(Counter(truth).values())
    turned = by_class[shift:] + by_class[:shift]
    order = [0] * len(truth)
    for place, photo in zip(by_class, turned, strict=True):
        order[place] = photo
    return order


def _chance_limit(truth: Sequence[int]) -> int:
    """Return the most right answers on blanks that chance explains.

    Blanks of one size all get one answer, so on photos of one size at most the biggest class is right. Blanks
    of several sizes may get several answers: there the count must not exceed that class's share
    significantly, by the exact one-sided binomial test.
    """
    from scipy.stats import binom

    share = max(Counter(truth).values()) / len(truth)
    return max(k for k in range(len(truth) + 1) if binom.sf(k - 1, len(truth), share) >= _BETTER_THAN_CHANCE)


def _judge(found: _Found, n: int) -> tuple[GateCheck, ...]:
    wrong = f", wrong: {', '.join(found.mistakes[:3])}" if found.mistakes else ""
    results: tuple[tuple[Literal["loss", "answers", "swapped", "blanks"], bool, str], ...] = (
        ("loss", found.loss < _ABOUT_ZERO, f"{found.loss:.4f} nats a token (below {_ABOUT_ZERO})"),
        ("answers", found.right == n, f"{found.right} of {n} right{wrong}"),
        (
            "swapped",
            found.swapped_right == n,
            f"{found.swapped_right} of {n} answers moved with their photos",
        ),
        (
            "blanks",
            found.blank_right <= found.blank_limit,
            f"{found.blank_right} of {n} right on blanks (chance explains up to {found.blank_limit})",
        ),
    )
    return tuple(
        GateCheck(name=name, passed=passed, detail=detail, hint=_HINTS[name]) for name, passed, detail in results
    )


def choose(train_examples: Sequence[Example], num_examples: int, *, seed: int) -> list[Example]:
    """Return the gate's examples.

    Raises:
        TrainingError: Fewer than two would be chosen, or all of one class: nothing could be told apart.
    """
    chosen = balanced(train_examples, num_examples, seed=seed)
    if len({example.label for example in chosen}) < 2:
        raise TrainingError(
            f"the overfit gate needs examples of at least two classes, got {len(chosen)} from num_examples="
            f"{num_examples} and {len(train_examples)} training examples"
        )
    return chosen
