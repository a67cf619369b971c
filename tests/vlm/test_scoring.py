"""Exact scoring against brute force, on both architectures, in float32."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, PreTrainedModel, ProcessorMixin

from vlm_tune.task import Task
from vlm_tune.vlm import scoring
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.prompts import answer_ids, prompt_text
from vlm_tune.vlm.scoring import class_scores, inference, reference_scores, score_batch, score_labels

SIZES = [(32, 32), (96, 40), (40, 96), (64, 64), (150, 110), (33, 60)]
TASKS = {
    "one token each": ("crack", "dent", "scratch"),
    "labels that begin others": ("a", "a b", "a b c", "b", "crack on a dent", "crack"),
    "100 classes": tuple(f"{word} {number}" for number in range(25) for word in ("oak", "elm", "ash", "yew bush")),
}


@pytest.fixture(scope="session")
def loaded() -> dict[Path, tuple[PreTrainedModel, ProcessorMixin]]:
    return {}


@pytest.fixture
def model_and_processor(
    tiny_vlm: Path, loaded: dict[Path, tuple[PreTrainedModel, ProcessorMixin]]
) -> tuple[PreTrainedModel, ProcessorMixin]:
    if tiny_vlm not in loaded:
        model = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32, attn_implementation="sdpa")
        loaded[tiny_vlm] = model.eval(), AutoProcessor.from_pretrained(tiny_vlm)
    return loaded[tiny_vlm]


@pytest.fixture(scope="session")
def photos(noise_png: Callable[..., bytes]) -> list[bytes]:
    return [noise_png(width, height, seed) for seed, (width, height) in enumerate(SIZES)]


@pytest.mark.parametrize("classes", TASKS.values(), ids=TASKS.keys())
def test_equals_brute_force(
    classes: tuple[str, ...],
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin],
    photos: list[bytes],
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="What is it?", classes=classes)
    few = photos if len(classes) < 10 else photos[:2]
    scores, reference = (
        score_labels(model, processor, few, task),
        reference_scores(model, processor, few, task),
    )
    assert scores.shape == (len(few), len(classes))
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, reference, atol=1e-4, rtol=0)
    assert scores.argmax(1).tolist() == reference.argmax(1).tolist()
    # The test means something only if photos and labels make a difference.
    assert reference.std(0).mean() > 0.01
    assert reference.std(1).min() > 0.1
    assert scoring._continues[model]


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


def test_what_another_answer_begins_with_is_not_computed_again() -> None:
    # One token a class, one for the comma, one for the end.
    sets = [chosen for size in range(1, 11) for chosen in itertools.combinations(range(10), size)]
    answers = [[token for index in chosen for token in (50, 100 + index)][1:] for chosen in sets]
    answers = [[*answer, 2] for answer in answers]
    answers.append([99, 2])
    passes = list(scoring._passes(answers))
    paths = [path for chunk, _ in passes for path in chunk]
    # Of all lists of ten classes, only those with the last one are no beginning of another.
    assert len(paths) == len(set(paths)) == 2**9 + 1
    assert max(len(chunk) for chunk, _ in passes) <= 8
    assert sorted(place for _, places in passes for place in places) == list(range(len(answers)))
    for chunk, places in passes:
        assert all(any(path[: len(answers[at]) - 1] == tuple(answers[at][:-1]) for path in chunk) for at in places)


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
    inputs = prepare(processor, photos, [prompt_text(processor, Task(prompt="?", classes=("a", "b")))] * 6)
    answers = [answer_ids(processor, label) for label in TASKS["100 classes"][:11]]
    scores = score_batch(model, inputs, answers)
    assert torch.allclose(score_batch(model, inputs, answers[::-1]).flip(1), scores, atol=1e-4, rtol=0)
    assert torch.allclose(score_batch(model, inputs, answers[3:4]), scores[:, 3:4], atol=1e-4, rtol=0)


def test_the_end_token_tells_a_label_from_one_that_begins_with_it(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin], photos: list[bytes]
) -> None:
    model, processor = model_and_processor
    task = Task(prompt="?", classes=("a", "a b"))
    inputs = prepare(processor, photos, [prompt_text(processor, task)] * len(photos))
    short, long = (answer_ids(processor, label) for label in task.classes)
    assert long[: len(short) - 1] == short[:-1]
    without_end = score_batch(model, inputs, [[*short[:-1], long[len(short) - 1]], long])
    # A longer text is never likelier than its beginning; the end token is what lets it win.
    assert (without_end[:, 0] >= without_end[:, 1]).all()


def test_a_model_that_cannot_continue_takes_the_long_way(
    model_and_processor: tuple[PreTrainedModel, ProcessorMixin],
    photos: list[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, processor = model_and_processor
    broken = copy.deepcopy(model)
    text_model = broken.model.language_model

    def forget(module: object, args: object, kwargs: dict[str, object]) -> tuple[object, dict[str, object]]:
        return args, {**kwargs, "past_key_values": None, "use_cache": False}

    text_model.register_forward_pre_hook(forget, with_kwargs=True)
    task = Task(prompt="What is it?", classes=TASKS["labels that begin others"])
    scores = score_labels(broken, processor, photos[:3], task)
    assert not scoring._continues[broken]
    assert "cannot continue from a kept state" in capsys.readouterr().err
    assert torch.allclose(scores, reference_scores(model, processor, photos[:3], task), atol=1e-4, rtol=0)


def test_a_lost_state_is_noticed(model_and_processor: tuple[PreTrainedModel, ProcessorMixin]) -> None:
    """The probe itself: a cache whose rows are not reordered must not pass."""
    model, _ = model_and_processor
    from transformers import DynamicCache

    kept = DynamicCache.reorder_cache
    try:
        DynamicCache.reorder_cache = lambda self, order: None
        with inference(model):
            assert not scoring._continuation_is_exact(model, [304, 71, 371, 2])
    finally:
        DynamicCache.reorder_cache = kept
    with inference(model):
        assert scoring._continuation_is_exact(model, [304, 71, 371, 2])


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
