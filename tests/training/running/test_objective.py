from pathlib import Path

import pytest
import torch
from torch.nn import functional

from vlm_tune.data import Dataset
from vlm_tune.training import TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.running.batches import Batches
from vlm_tune.training.running.loop import Job, train
from vlm_tune.training.running.objective import Answers, answer_loss
from vlm_tune.training.running.sampling import example_weights
from vlm_tune.training.running.steps import Row
from vlm_tune.training.running.stock import Stock
from vlm_tune.vlm import VLM


def answers(weights: list[float]) -> Answers:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(weights), 11, generator=generator)
    return Answers(logits=logits, targets=torch.arange(len(weights)), weights=torch.tensor(weights))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_equal_weights_are_torchs_mean(smoothing: float) -> None:
    some = answers([1.0] * 6)
    expected = functional.cross_entropy(some.logits, some.targets, label_smoothing=smoothing)
    assert answer_loss(some, num_tokens=6, label_smoothing=smoothing) == pytest.approx(float(expected))


def test_smoothing_spreads_a_share_over_the_whole_vocabulary() -> None:
    some = answers([1.0] * 4)
    logs = some.logits.log_softmax(-1)
    right = logs.gather(-1, some.targets[:, None])[:, 0]
    expected = -(0.9 * right + 0.1 * logs.mean(-1)).mean()
    assert answer_loss(some, num_tokens=4, label_smoothing=0.1) == pytest.approx(float(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_multiply_each_tokens_loss(smoothing: float) -> None:
    some = answers([0.5, 2.0, 0.0])
    each = functional.cross_entropy(some.logits, some.targets, reduction="none", label_smoothing=smoothing)
    expected = (0.5 * each[0] + 2.0 * each[1]) / 3
    assert answer_loss(some, num_tokens=3, label_smoothing=smoothing) == pytest.approx(float(expected))


def test_class_weights_of_mean_one_are_torchs_weighted_mean() -> None:
    # torch divides by the sum of the weights; ours is the number of tokens, which is the same when their mean is 1.
    some = answers([0.5, 1.5, 1.0])
    by_class = torch.ones(11)
    by_class[:3] = some.weights
    expected = functional.cross_entropy(some.logits, some.targets, weight=by_class)
    assert answer_loss(some, num_tokens=3) == pytest.approx(float(expected))


def test_the_parts_of_a_step_add_up() -> None:
    whole = answers([1.0, 2.0, 0.5, 0.5])
    parts = [
        Answers(whole.logits[place], whole.targets[place], whole.weights[place]) for place in (slice(0, 1), slice(1, 4))
    ]
    added = sum(float(answer_loss(part, num_tokens=4)) for part in parts)
    assert added == pytest.approx(float(answer_loss(whole, num_tokens=4)))


def test_half_precision_logits_lose_nothing_more() -> None:
    some = answers([1.0, 1.0])
    half = Answers(some.logits.bfloat16(), some.targets, some.weights)
    exact = Answers(half.logits.float(), some.targets, some.weights)
    assert answer_loss(half, num_tokens=2) == answer_loss(exact, num_tokens=2)


@pytest.mark.parametrize("fast", [True, False])
def test_training_minimises_the_weighted_and_smoothed_loss(tiny_vlm: Path, colours: Dataset, fast: bool) -> None:
    resident = VLM(tiny_vlm).load()
    batches = Batches(colours.examples[:6], processor=resident.processor, task=colours.task, dtype=resident.dtype)
    weights = example_weights([one.label for one in batches.examples], {"red": 4.0})
    rows = [Row(index, weight) for index, weight in enumerate(weights)]
    with torch.no_grad():
        said = Stock(resident, batches).answers(resident.model, rows)
    each = functional.cross_entropy(said.logits, said.targets, reduction="none", label_smoothing=0.2)
    lengths = torch.tensor([len(batches.answer(one.label)) for one in batches.examples])
    expected = (each * torch.tensor(weights).repeat_interleave(lengths)).sum() / lengths.sum()

    config = TrainConfig(r=4, batch_size=6, label_smoothing=0.2, class_weights={"red": 4.0}, fast=fast)
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        job = Job(resident=resident, wrapped=wrapped, batches=batches, config=config, title="Testing", max_steps=1)
        history = train(job)
    assert history.losses[0] == pytest.approx(float(expected), rel=1e-4)
    assert history.losses[0] != pytest.approx(float(each.mean()), rel=1e-2)
