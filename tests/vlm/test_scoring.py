"""Exact scoring against brute force, on both architectures, in float32."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel, ProcessorMixin

from tests.vlm.asking import answered
from vlm_tune.task import Task
from vlm_tune.vlm import continuing, one_pass
from vlm_tune.vlm.continuing import Continuing
from vlm_tune.vlm.one_pass import OnePass
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.prompts import answer_ids, prompt_text
from vlm_tune.vlm.scoring import answers_of, class_scores, reference_scores, score_labels, scorer

TASKS = {
    "one token each": ("crack", "dent", "scratch"),
    "labels that begin others": ("a", "a b", "a b c", "b", "crack on a dent", "crack"),
    "100 classes": tuple(f"{word} {number}" for number in range(25) for word in ("oak", "elm", "ash", "yew bush")),
}


def score_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    photos: Sequence[bytes],
    prompt: str,
    answers: Sequence[Sequence[int]],
) -> torch.Tensor:
    return answered(scorer(model, processor, prompt, answers), photos)


@pytest.mark.parametrize("way", ["one pass", "continuing"])
@pytest.mark.parametrize("classes", TASKS.values(), ids=TASKS.keys())
def test_equals_brute_force(
    classes: tuple[str, ...],
    way: str,
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin],
    photos: list[bytes],
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="What is it?", classes=classes)
    few = photos if len(classes) < 10 else photos[:2]
    prompt, answers = prompt_text(processor, task), answers_of(processor, classes)
    found = (
        Continuing(model, processor, prompt, answers)
        if way == "continuing"
        else scorer(model, processor, prompt, answers)
    )
    assert isinstance(found, Continuing if way == "continuing" else OnePass)
    scores, reference = answered(found, few), reference_scores(model, processor, few, task)
    assert scores.shape == (len(few), len(classes))
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, reference, atol=1e-4, rtol=0)
    assert scores.argmax(1).tolist() == reference.argmax(1).tolist()
    # The test means something only if photos and labels make a difference.
    assert reference.std(0).mean() > 0.01
    assert reference.std(1).min() > 0.1
    assert continuing._continues[model] if way == "continuing" else one_pass._agree[model][frozenset()]


def test_lists_of_classes_equal_brute_force(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="What is it?", classes=("crack", "a", "a b", "dent on a panel"), multi_label=True)
    scores, reference = (score(model, processor, photos[:3], task) for score in (score_labels, reference_scores))
    assert scores.shape == (3, 16)
    assert torch.allclose(scores, reference, atol=1e-4, rtol=0)
    assert scores.argmax(1).tolist() == reference.argmax(1).tolist()
    few = ("a, dent on a panel", "none")
    chosen = [task.answers.index(label) for label in few]
    assert torch.allclose(
        score_labels(model, processor, photos[:3], task, labels=few), scores[:, chosen], atol=1e-4, rtol=0
    )

    normalised = scores.double().log_softmax(-1)
    of_classes = class_scores(task, task.answers, normalised)
    for row, classes in zip(normalised.tolist(), of_classes.tolist(), strict=True):
        by_answer = dict(zip(task.answers, row, strict=True))
        for label, score in zip(task.classes, classes, strict=True):
            chance = sum(math.exp(value) for answer, value in by_answer.items() if label in answer.split(", "))
            assert score == pytest.approx(math.log(chance), abs=1e-9)


def test_class_scores_of_single_classes_are_their_own() -> None:
    task = Task(prompt="?", classes=("a", "b", "c"))
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    assert torch.equal(class_scores(task, task.answers, scores), scores)


def test_scores_do_not_depend_on_batch_order_or_the_tokenizers_padding_side(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="What is it?", classes=TASKS["labels that begin others"])
    together = score_labels(model, processor, photos, task)
    for size, side in ((1, "left"), (2, "right"), (4, "left")):
        processor.tokenizer.padding_side = side
        order = random.Random(size).sample(range(len(photos)), len(photos))
        rows = {}
        for start in range(0, len(order), size):
            part = order[start : start + size]
            rows.update(zip(part, score_labels(model, processor, [photos[i] for i in part], task), strict=True))
        mixed = torch.stack([rows[index] for index in range(len(photos))])
        assert torch.allclose(mixed, together, atol=1e-4, rtol=0), (size, side)
        assert mixed.argmax(1).tolist() == together.argmax(1).tolist()


def test_labels_are_scored_by_themselves(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    """Neither the other labels nor their order nor the size of a pass changes a label's score."""
    model, processor = model_and_processor
    prompt = prompt_text(processor, Task(prompt="?", classes=("a", "b")))
    answers = [answer_ids(processor, label) for label in TASKS["100 classes"][:11]]
    scores = score_answers(model, processor, photos, prompt, answers)
    again = score_answers(model, processor, photos, prompt, answers[::-1]).flip(1)
    assert torch.allclose(again, scores, atol=1e-4, rtol=0)
    alone = score_answers(model, processor, photos, prompt, answers[3:4])
    assert torch.allclose(alone, scores[:, 3:4], atol=1e-4, rtol=0)


def test_the_end_token_tells_a_label_from_one_that_begins_with_it(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="?", classes=("a", "a b"))
    short, long = (answer_ids(processor, label) for label in task.classes)
    assert long[: len(short) - 1] == short[:-1]
    without_end = score_answers(
        model, processor, photos, prompt_text(processor, task), [[*short[:-1], long[len(short) - 1]], long]
    )
    # A longer text is never likelier than its beginning; the end token is what lets it win.
    assert (without_end[:, 0] >= without_end[:, 1]).all()


def test_scoring_leaves_the_model_in_the_mode_it_was_in(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="?", classes=("a", "b"))
    before = score_labels(model, processor, photos[:1], task)
    model.train()
    try:
        assert torch.equal(score_labels(model, processor, photos[:1], task), before)
        assert model.training
        # Training right after scoring still works: nothing kept between calls is an inference tensor.
        inputs = prepare(processor, photos[:1], [prompt_text(processor, task)])
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
    finally:
        model.eval()
        model.zero_grad(set_to_none=True)
