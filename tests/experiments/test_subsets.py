"""Subsets are nested, show every class, and the sample of training images is the same at all larger sizes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import DataError
from vlm_tune.experiments import subsets
from vlm_tune.experiments.subsets import check_sizes, sample_of
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("crack", "dent", "scratch"))


def photos(counts: dict[str, int], task: Task = TASK) -> Dataset:
    examples = [
        Example(id=f"{label}/{number}", image=f"{label}{number}".encode(), label=label)
        for label, count in counts.items()
        for number in range(count)
    ]
    return Dataset(examples, task=task)


@pytest.fixture(scope="module")
def train() -> Dataset:
    return photos({"crack": 60, "dent": 30, "scratch": 10})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_larger_size_holds_the_smaller_ones_and_keeps_the_proportions(train: Dataset, seed: int) -> None:
    parts = [train.subset(size, seed=seed) for size in (3, 10, 20, 50, 100)]
    for smaller, larger in pairwise(parts):
        assert set(smaller.ids) < set(larger.ids)
    assert all(set(part.labels) == set(TASK.classes) for part in parts)
    assert Counter(parts[2].labels) == {"crack": 12, "dent": 6, "scratch": 2}


def test_other_seeds_draw_other_images(train: Dataset) -> None:
    assert set(train.subset(20, seed=0).ids) != set(train.subset(20, seed=1).ids)


def test_the_sample_is_all_of_a_small_size_and_the_same_at_all_larger_ones(
    train: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subsets, "SAMPLE", 20)
    assert sample_of(train, 10, 0).ids == train.subset(10, seed=0).ids
    sample = sample_of(train, 50, 0)
    assert len(sample) == 20
    assert sample.ids == sample_of(train, 100, 0).ids
    for size in (50, 100):
        assert set(sample.ids) <= set(train.subset(size, seed=0).ids)


def test_sizes_that_show_every_class_are_accepted(train: Dataset) -> None:
    check_sizes(train, (3, 100), (0, 1, 2))


def test_fewer_images_than_classes_are_refused(train: Dataset) -> None:
    with pytest.raises(DataError, match=r"2 training images \(seed 1\) do not show all 3 classes: 'scratch' would"):
        check_sizes(train, (50, 2), (1,))


def test_a_class_that_no_training_image_shows_is_refused() -> None:
    with pytest.raises(DataError, match="no training image shows 'scratch', so that no size can show every class"):
        check_sizes(photos({"crack": 5, "dent": 5}), (4,), (0,))


def test_every_class_of_a_multi_label_task_is_shown() -> None:
    task = Task(prompt="Which ones?", classes=TASK.classes, multi_label=True)
    train = photos({"crack, dent": 20, "none": 20, "scratch": 2}, task)
    check_sizes(train, (3,), (0, 1, 2))
    with pytest.raises(DataError, match="do not show all 3 classes"):
        check_sizes(train, (1,), (0,))


def test_true_is_no_size(train: Dataset) -> None:
    with pytest.raises(DataError, match=r"not \[True\]"):
        check_sizes(train, (True, 10), (0,))
