"""What can be searched is refused or understood before anything loads."""

from __future__ import annotations

import math
from typing import Any

import pytest

from vlm_tune.errors import TrainingError
from vlm_tune.experiments.dimensions import Choice, Dimension, LogUniform, Uniform
from vlm_tune.experiments.space import Space, check_space
from vlm_tune.task import Task
from vlm_tune.training import Augment, TrainConfig

TASK = Task(prompt="?", classes=("crack", "dent"))
START = TrainConfig(r=16, lora_alpha=32, epochs=2)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "the space is empty; it may hold r, batch_size, max_pixels"),
        ({"rank": Choice(1, 2)}, "no setting 'rank' to search; it may hold r,"),
        ({"learning_rat": LogUniform(1e-5, 1e-3)}, "did you mean learning_rate?"),
        ({"seed": Choice(1, 2)}, "seed is not searched: another seed is other luck"),
        ({"micro_batch_size": Choice(1, 2)}, "micro_batch_size is not searched: it does not change what is trained"),
        ({"keep": Choice("best", "last")}, "keep is not searched: it decides how trials are judged"),
        ({"r": (16, 64)}, r"r needs a Choice, Uniform or LogUniform, got \(16, 64\)"),
        ({"regions": Uniform(0, 1)}, "regions is no number; give a Choice"),
        ({"use_rslora": Uniform(0, 1)}, "use_rslora is no number"),
        ({"r": Uniform(4, 8.5)}, "r is a whole number, unlike Uniform"),
        ({"max_pixels": Uniform(1000, 2000, step=0.5)}, "max_pixels is a whole number"),
    ],
)
def test_what_cannot_be_searched_is_refused(space: dict[str, Any], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        check_space(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"r": Choice(0, 16)}, "r cannot be 0: TrainConfig.r: Input should be greater than 0"),
        ({"lora_alpha": Choice(16, -1)}, "lora_alpha cannot be -1: TrainConfig.lora_alpha"),
        ({"lora_dropout": Uniform(0.0, 1.0)}, "lora_dropout cannot be 1.0"),
        ({"regions": Choice(("vision",), ("eyes",))}, r"regions cannot be \('eyes',\)"),
        ({"augment": Choice(None, "mixup")}, "augment cannot be 'mixup'"),
        ({"max_pixels": Choice(-5, 100)}, "max_pixels cannot be -5: Task.max_pixels"),
    ],
)
def test_an_impossible_value_is_refused(space: dict[str, Dimension], words: str) -> None:
    check_space(space)
    with pytest.raises(TrainingError, match=words):
        Space(space, START, TASK)


def test_a_value_that_contradicts_the_starting_configuration_is_refused() -> None:
    start = TrainConfig(batch_size=4, micro_batch_size=4)
    with pytest.raises(TrainingError, match=r"batch_size cannot be 2: TrainConfig\.micro_batch_size is 4"):
        Space({"batch_size": Choice(2, 4)}, start, TASK)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Choice(),
        lambda: Choice(16),
        lambda: Choice(16, 16),
        lambda: Uniform(2, 1),
        lambda: Uniform(0, math.inf),
        lambda: Uniform(0, math.nan),
        lambda: Uniform(1, 4, step=2),
        lambda: Uniform(1, 4, step=0),
        lambda: LogUniform(0, 1),
        lambda: LogUniform(1e-3, 1e-5),
    ],
)
def test_values_that_are_none_are_refused_at_once(made: Any) -> None:
    with pytest.raises(TrainingError):
        made()


def test_values_become_a_configuration() -> None:
    mixed = Augment(mixup=0.2)
    space = Space(
        {"r": Choice(8, 64), "augment": Choice(None, mixed), "learning_rate": LogUniform(1e-5, 1e-3)}, START, TASK
    )
    setting = space.setting({"r": "64", "augment": "mixup 0.2", "learning_rate": 1e-4})
    assert setting.config == TrainConfig(r=64, lora_alpha=32, epochs=2, augment=mixed, learning_rate=1e-4)
    assert setting.max_pixels == TASK.max_pixels
    smaller = Space({"max_pixels": Uniform(1000, 5000)}, START, TASK).setting({"max_pixels": 1000})
    assert (smaller.config, smaller.max_pixels) == (START, 1000)


@pytest.mark.parametrize(
    ("dimension", "place"),
    [
        (Choice(8, 16), "16"),
        (Choice(8, 64), None),
        (Uniform(1, 100), 16),
        (Uniform(1, 15), None),
        (Uniform(8, 32, step=8), 16),
        (Uniform(8, 18, step=10), None),
        (LogUniform(1, 16), 16),
    ],
)
def test_where_the_starting_configuration_lies(dimension: Dimension, place: object) -> None:
    found = Space({"r": dimension}, START, TASK).place_of_start()
    assert found == (None if place is None else {"r": place})


def test_how_many_settings_there_are() -> None:
    two, five = {"use_rslora": Choice(True, False)}, {"epochs": Uniform(1, 3, step=0.5)}
    assert Space({**two, **five}, START, TASK).num_points == 10
    assert Space({"r": Uniform(4, 8)}, START, TASK).num_points == 5
    assert Space({"learning_rate": LogUniform(1e-5, 1e-3)}, START, TASK).num_points == math.inf


def test_all_parts_of_the_model_are_looked_for() -> None:
    regions = Choice(("language",), ("vision", "language"))
    space = Space({"regions": regions, "kinds": Choice(("attention",), ("mlp",)), "r": Choice(8, 64)}, START, TASK)
    found = {(one.config.regions, one.config.kinds, one.config.r) for one in space.settings()}
    assert len(found) == 4
    assert {r for *_, r in found} == {16}


def test_another_space_is_written_in_other_words() -> None:
    def written(**space: Dimension) -> str:
        return Space(space, START, TASK).written

    base = written(augment=Choice(None, Augment(mixup=0.2)))
    assert base == written(augment=Choice(None, Augment(mixup=0.2)))
    assert base != written(augment=Choice(None, Augment(mixup=0.3)))
    assert written(r=Uniform(4, 8)) != written(r=LogUniform(4, 8))
    assert written(r=Uniform(4, 8)) != written(r=Uniform(4, 8, step=2))
