"""Losses come back in order, with their steps, and tell whether the end was asked for."""

from __future__ import annotations

import pytest
import torch

from vlm_tune.training.running.steps import Step
from vlm_tune.training.running.tape import Tape


def test_on_a_processor_a_loss_can_be_read_at_once() -> None:
    tape, steps = Tape(), [Step((), ()), Step((), ())]
    assert list(tape.read()) == []
    for number, step in enumerate(steps, start=1):
        tape.put(number, step, torch.tensor(number / 4, dtype=torch.bfloat16), 0.1 * number, ending=number == 2)
    first, second = tape.read()
    assert (first.number, first.loss, first.ending) == (1, 0.25, False)
    assert (second.number, second.loss, second.ending) == (2, 0.5, True)
    assert second.step is steps[1]
    assert second.learning_rate == pytest.approx(0.2)
    assert list(tape.read(all_of_them=True)) == []


def test_what_is_put_in_holds_no_graph() -> None:
    tape, weight = Tape(), torch.ones(3, requires_grad=True)
    tape.put(1, Step((), ()), (2 * weight).sum(), 0.1)
    weight.data.zero_()
    (reading,) = tape.read()
    assert reading.loss == 6
    assert weight.grad is None
