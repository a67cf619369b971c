"""Batches that memory or the processor does not suffice for, before the model is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_tune.errors import ModelError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm import VLM, generating, question
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.one_pass import OnePass
from vlm_tune.vlm.resident import Resident

TASK = Task(prompt="What is it?", classes=("a", "a b", "crack", "dent on a panel"))


@pytest.fixture
def examples(noise_png: Callable[..., bytes]) -> list[Example]:
    return [Example(id=f"{number}.png", image=noise_png(40, 30 + number, number), label="a") for number in range(9)]


@pytest.fixture
def resident(tiny_vlm: Path) -> Resident:
    return VLM(tiny_vlm, device="cpu").load()


def by_id(predictions: Iterable[Prediction]) -> dict[str, Prediction]:
    return {prediction.example_id: prediction for prediction in predictions}


@pytest.mark.parametrize("mode", ["score", "generate"])
@pytest.mark.parametrize("size", [(3000, 3), (1000, 1)], ids=["in tiles", "whole"])
def test_a_photo_that_lfm2_vl_cannot_cut_into_patches_fails_alone(
    tiny_lfm2_vl: Path,
    examples: list[Example],
    noise_png: Callable[..., bytes],
    size: tuple[int, int],
    mode: question.Mode,
) -> None:
    ribbon = Example(id="ribbon", image=noise_png(*size), label="crack")
    resident = VLM(tiny_lfm2_vl, device="cpu").load()
    found = by_id(answers(resident, [ribbon, *examples[:4]], TASK, mode=mode, batch_size=3))
    assert found["ribbon"].outcome == "failed"
    assert "long and narrow" in (found["ribbon"].error or "")
    assert all(found[example.id].outcome != "failed" for example in examples[:4])


@pytest.mark.parametrize(("mode", "way"), [("score", OnePass), ("generate", generating.Generator)])
def test_out_of_memory_while_photos_are_cut_up_halves_the_batch_too(
    resident: Resident, examples: list[Example], mode: question.Mode, way: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_id(answers(resident, examples, TASK, mode=mode))
    prepare, tried, room = way.prepare, [], 2

    def limited(self: Any, photos: list[Any]) -> Any:
        tried.append(len(photos))
        if tried[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return prepare(self, photos)

    monkeypatch.setattr(way, "prepare", limited)
    found = by_id(answers(resident, examples, TASK, mode=mode))
    assert {key: one.label for key, one in found.items()} == {key: one.label for key, one in expected.items()}
    assert max(tried) > room
    assert max(tried[-3:]) <= room
    room = 0
    with pytest.raises(ModelError, match=r"not enough memory on cpu for \d\.png alone"):
        list(answers(resident, examples, TASK, mode=mode))
