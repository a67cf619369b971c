"""The stock way through a model: every answer counts by just its share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vlm_tune.data import Dataset
from vlm_tune.training.augmenting.drawing import Mix, View
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.steps import Row
from vlm_tune.training.running.stock import Stock
from vlm_tune.vlm import VLM


def test_shares_are_not_rounded_to_the_models_type(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    resident = VLM(tiny_qwen3_vl, device="cpu", dtype="bfloat16").load()
    batches = Batches(colours.examples, processor=resident.processor, task=colours.task, dtype=resident.dtype)
    labels = [example.label for example in colours]
    other = next(place for place, label in enumerate(labels) if label != labels[0])
    mixed = Row(0, 1.0, View(mix=Mix(other, 1.0, (), 0.37)))
    stock = Stock(resident, batches)
    with torch.no_grad():
        answers = stock.answers(resident.model, [mixed])
    stock.close()
    first, second = (len(batches.answer(labels[place])) for place in (0, other))
    assert answers.logits.dtype == torch.bfloat16
    assert answers.weights.tolist() == pytest.approx([0.37] * first + [0.63] * second, abs=1e-6)
