"""Exact closed-set scoring: the log-probability of every label given the photo and the prompt.

The score of a label is the sum of the log-probabilities of its tokens and of the token that ends the turn,
so labels of several tokens, and labels that begin other labels, compete fairly:

    score(label) = sum over t of log p(token_t | photo, prompt, token_1 .. token_{t-1})

`reference_scores` does just that, one whole forward pass per photo and label. `scorer` returns what does it quickly:
`one_pass.py` for the architectures that this library has a forward pass of its own for, `continuing.py` for all others;
the tests hold all three together. Where there are many answers and only the likely ones matter, `likely.py` computes no
others.

The labels of a multi-label task are its answers, up to 1,024 lists of classes. After normalising over them, the
probability of a class is the sum of those of the answers that name it (`class_scores`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from vlm_tune.errors import TaskError
from vlm_tune.images import decode
from vlm_tune.task import Task
from vlm_tune.vlm.pixels import prepare, to_model
from vlm_tune.vlm.prompts import answer_ids, prompt_text
from vlm_tune.vlm.tree import AnswerTree

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = [
    "SEMANTICS",
    "Scorer",
    "answers_of",
    "at_rest",
    "class_scores",
    "inference",
    "reference_scores",
    "score_labels",
    "scorer",
]

SEMANTICS = "sum of label token log-probabilities with end of turn, v1"
"""What a score means; part of every fingerprint, so that answers scored otherwise are never mixed in."""


class Scorer(Protocol):
    """Scores the same answers for one batch of photos after the other."""

    def read(self, photo: Image) -> Any:
        """Return a decoded photo as `prepare` takes it; for many threads at once."""

    def prepare(self, photos: Sequence[Any]) -> Any:
        """Return the model's inputs for a batch of photos; for one thread, ahead of `answer`.

        Raises:
            ValueError: The processor refuses a photo, e.g. one 200 times as wide as high.
        """

    def num_tokens(self, prepared: Any) -> int:
        """Return how many tokens a batch is."""

    def answer(self, prepared: Any) -> Tensor:
        """Return the log-probability of every answer for every photo.

        Returns:
            Float32 tensor of shape (photos, answers) on the model's device; not normalised.
        """


def scorer(model: PreTrainedModel, processor: ProcessorMixin, prompt: str, answers: Sequence[Sequence[int]]) -> Scorer:
    """Return the quickest way to get the exact scores of all of some answers.

    Args:
        model: The model, bare or with adapters on it; it must stay as it is while the scorer is used.
        processor: The model's own processor.
        prompt: The rendered prompt.
        answers: The tokens of each answer, the end of turn included; see `answers_of`.
    """
    from vlm_tune.vlm.continuing import Continuing
    from vlm_tune.vlm.one_pass import one_pass

    stock = Continuing(model, processor, prompt, answers)
    return one_pass(model, processor, prompt, AnswerTree.of(answers), stock=stock) or stock


def answers_of(processor: ProcessorMixin, labels: Sequence[str]) -> list[list[int]]:
    """Return the tokens of some labels, the end of turn included.

    Raises:
        TaskError: Two labels are the same tokens to this model, or one contains a special token.
    """
    answers = [answer_ids(processor, label) for label in labels]
    first: dict[tuple[int, ...], str] = {}
    for label, answer in zip(labels, answers, strict=True):
        if (other := first.setdefault(tuple(answer), label)) != label:
            raise TaskError(
                f"{other!r} and {label!r} are the same tokens to this model's tokenizer, so it cannot tell them apart; "
                "rename one of them"
            )
    return answers


def score_labels(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    images: Sequence[bytes],
    task: Task,
    *,
    labels: Sequence[str] | None = None,
) -> Tensor:
    """Return the log-probability of every label for every photo, in one batch.

    Args:
        model: The model, bare or wrapped by PEFT.
        processor: The model's own processor.
        images: Encoded photos.
        task: The question.
        labels: What to score; all of `task.answers` by default.

    Returns:
        Float32 CPU tensor of shape (len(images), len(labels)); not normalised.

    Raises:
        ImageError: A photo cannot be decoded.
        TaskError: The task's answers are too many to list, and no labels are given; or two are the same tokens.
    """
    with inference(model):
        way = scorer(model, processor, prompt_text(processor, task), answers_of(processor, labels or task.answers))
        return way.answer(way.prepare([way.read(decode(image)) for image in images])).cpu()


def class_scores(task: Task, labels: Sequence[str], scores: Tensor) -> Tensor:
    """Return the log-probability that a photo's answer names each class.

    Args:
        task: The question.
        labels: What was scored, such as `task.answers`; together they name every class.
        scores: Log-probabilities normalised over the labels, of shape (rows, len(labels)).

    Returns:
        Tensor of shape (rows, len(task.classes)): the logarithm of the sum of exp(score) over the labels that name
        the class. Where a label is one class, that is its own score.

    Examples:
        >>> import torch
        >>> task = Task(prompt="?", classes=("a", "b"), multi_label=True)
        >>> scores = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()  # none; a; b; a, b
        >>> class_scores(task, task.answers, scores).exp()
        tensor([[0.6000, 0.7000]])
    """
    import torch

    if not task.multi_label:
        return scores[:, [labels.index(name) for name in task.classes]]
    named = [[place for place, label in enumerate(labels) if name in task.members(label)] for name in task.classes]
    # Rounding may lift a sum of all answers a hair above 1.
    return torch.stack([scores[:, places].logsumexp(-1) for places in named], dim=-1).clamp(max=0)


def reference_scores(model: PreTrainedModel, processor: ProcessorMixin, images: Sequence[bytes], task: Task) -> Tensor:
    """Return the same as `score_labels` by brute force: one whole pass per photo and label, nothing shared.

    Returns:
        Float32 CPU tensor of shape (len(images), len(task.answers)).

    Raises:
        TaskError: The task's answers are too many to list.
    """
    import torch

    from vlm_tune.vlm.continuing import full_forward

    prompt = prompt_text(processor, task)
    answers = [answer_ids(processor, label) for label in task.answers]
    with inference(model):
        rows = []
        for image in images:
            inputs = to_model(prepare(processor, [image], [prompt], device=model.device), model)
            rows.append(torch.cat([full_forward(model, inputs, answer) for answer in answers]))
        return torch.stack(rows).cpu()


@contextmanager
def inference(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout and gradients off inside the block, and leave the model in the mode it was in."""
    import torch

    # Not inference_mode: what the model keeps between calls must stay usable for training.
    with at_rest(model), torch.no_grad():
        yield


@contextmanager
def at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off inside the block, and leave the model in the mode it was in.

    Going through a thousand modules takes as long as to start all kernels of a batch: once a run, not once a batch.
    """
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
