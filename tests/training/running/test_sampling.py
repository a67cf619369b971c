import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.training import LoRATrainer, TrainConfig
from vlm_tune.training.running.sampling import epoch_order, example_weights
from vlm_tune.training.running.stock import Stock
from vlm_tune.vlm import VLM

label_lists = st.lists(st.sampled_from(["crack", "dent", "scratch", "none"]), min_size=1, max_size=30)


def spread(counts: Iterable[int]) -> int:
    counts = list(counts)
    return max(counts) - min(counts)


@given(label_lists, st.integers(0, 9), st.integers(0, 9))
def test_shuffled_takes_everything_once(labels: list[str], seed: int, epoch: int) -> None:
    order = epoch_order(labels, sampling="shuffled", seed=seed, epoch=epoch)
    assert sorted(order) == list(range(len(labels)))
    assert order == epoch_order(labels, sampling="shuffled", seed=seed, epoch=epoch)


@settings(max_examples=50, deadline=None)
@given(label_lists, st.integers(0, 9), st.integers(1, 4))
def test_balanced_is_even_over_labels_and_over_their_photos(labels: list[str], seed: int, epochs: int) -> None:
    taken: list[int] = []
    for epoch in range(epochs):
        order = epoch_order(labels, sampling="balanced", seed=seed, epoch=epoch)
        assert len(order) == len(labels)
        assert order == epoch_order(labels, sampling="balanced", seed=seed, epoch=epoch)
        taken += order
        for some in (order, taken):
            drawn = [labels[place] for place in some]
            assert spread(drawn.count(label) for label in set(labels)) <= 1
            for label in set(labels):
                assert spread(some.count(place) for place, other in enumerate(labels) if other == label) <= 1


def test_a_big_label_takes_turns() -> None:
    labels = ["big"] * 9 + ["small"] * 3
    seen = [set(epoch_order(labels, sampling="balanced", seed=0, epoch=epoch)) for epoch in range(3)]
    assert all(len({place for place in epoch if place < 9}) == 6 for epoch in seen)
    assert set.union(*seen[:2]) == set(range(12))


def test_seed_and_epoch_change_the_order() -> None:
    labels = ["a", "b"] * 20
    for sampling in ("shuffled", "balanced"):
        orders = {
            tuple(epoch_order(labels, sampling=sampling, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)
        }
        assert len(orders) == 4


def test_labels_do_not_come_in_turns() -> None:
    labels = ["a", "b"] * 20
    order = [labels[place] for place in epoch_order(labels, sampling="balanced", seed=0, epoch=0)]
    assert any(one == other for one, other in itertools.pairwise(order))


@given(label_lists)
def test_balanced_weights_give_every_label_the_same_sum(labels: list[str]) -> None:
    weights = example_weights(labels, "balanced")
    sums = {label: sum(w for w, other in zip(weights, labels, strict=True) if other == label) for label in set(labels)}
    assert sum(weights) == pytest.approx(len(labels))
    assert list(sums.values()) == pytest.approx([len(labels) / len(sums)] * len(sums))


@given(label_lists, st.floats(0.1, 10))
def test_given_weights_keep_their_ratios_and_have_mean_one(labels: list[str], weight: float) -> None:
    labels = ["crack", "dent", *labels]
    weights = dict(zip(labels, example_weights(labels, {"crack": weight}), strict=True))
    assert sum(example_weights(labels, {"crack": weight})) == pytest.approx(len(labels))
    assert weights["crack"] / weights["dent"] == pytest.approx(weight)


def test_without_weights_all_count_alike() -> None:
    assert example_weights(["a", "b", "b"], None) == [1.0, 1.0, 1.0]


def test_a_weight_for_a_label_that_is_not_there() -> None:
    with pytest.raises(TrainingError, match=r"'Scrach', a label of no training example; did you mean scratch"):
        example_weights(["scratch", "dent"], {"Scrach": 2.0})
    with pytest.raises(TrainingError, match="they have dent, scratch"):
        example_weights(["scratch", "dent"], {"rust": 2.0})


def test_training_takes_them_in_that_order(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    answers = Stock.answers
    monkeypatch.setattr(
        Stock,
        "answers",
        lambda self, model, rows: taken.extend(row.index for row in rows) or answers(self, model, rows),
    )
    examples = [one for one in colours if one.label != "blue" or one.id == "blue/0"]
    data = Dataset(examples[:9], task=colours.task)
    labels = [one.label for one in data]
    config = TrainConfig(r=4, epochs=2, batch_size=3, sampling="balanced", fast=False, seed=3)
    LoRATrainer(VLM(tiny_qwen3_vl), config).fit(data, run_dir=tmp_path)
    orders = [epoch_order(labels, sampling="balanced", seed=3, epoch=epoch) for epoch in (0, 1)]
    assert taken == [*orders[0], *orders[1]]
    assert Counter(labels[place] for place in taken) == {"red": 6, "green": 6, "blue": 6}
