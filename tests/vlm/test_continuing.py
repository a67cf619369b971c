"""Answers continued from the state that transformers keeps."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, ProcessorMixin

from tests.vlm.asking import answered
from vlm_tune.task import Task
from vlm_tune.vlm import continuing
from vlm_tune.vlm.continuing import Continuing
from vlm_tune.vlm.prompts import prompt_text
from vlm_tune.vlm.scoring import answers_of, inference, reference_scores


def test_what_another_answer_begins_with_is_not_computed_again() -> None:
    # One token a class, one for the comma, one for the end.
    sets = [chosen for size in range(1, 11) for chosen in itertools.combinations(range(10), size)]
    answers = [[token for index in chosen for token in (50, 100 + index)][1:] for chosen in sets]
    answers = [[*answer, 2] for answer in answers]
    answers.append([99, 2])
    passes = list(continuing._passes(answers))
    paths = [path for chunk, _ in passes for path in chunk]
    # Of all lists of ten classes, only those with the last one are no beginning of another.
    assert len(paths) == len(set(paths)) == 2**9 + 1
    assert max(len(chunk) for chunk, _ in passes) <= 8
    assert sorted(place for _, places in passes for place in places) == list(range(len(answers)))
    for chunk, places in passes:
        assert all(any(path[: len(answers[at]) - 1] == tuple(answers[at][:-1]) for path in chunk) for at in places)


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
    task = Task(prompt="What is it?", classes=("a", "a b", "a b c", "b", "crack on a dent", "crack"))
    way = Continuing(broken, processor, prompt_text(processor, task), answers_of(processor, task.classes))
    scores = answered(way, photos[:3])
    assert not continuing._continues[broken]
    assert "cannot continue from a kept state" in capsys.readouterr().err
    assert torch.allclose(scores, reference_scores(model, processor, photos[:3], task), atol=1e-4, rtol=0)


def test_a_lost_state_is_noticed(model_and_processor: tuple[PreTrainedModel, ProcessorMixin]) -> None:
    """The probe itself: a cache whose rows are not reordered must not pass."""
    model, _ = model_and_processor
    kept = DynamicCache.reorder_cache
    try:
        DynamicCache.reorder_cache = lambda self, order: None
        with inference(model):
            assert not continuing._continuation_is_exact(model, [304, 71, 371, 2])
    finally:
        DynamicCache.reorder_cache = kept
    with inference(model):
        assert continuing._continuation_is_exact(model, [304, 71, 371, 2])
