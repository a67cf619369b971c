from collections import Counter

import pytest

from vlm_tune.training import Augment, TrainConfig
from vlm_tune.training.augmenting.drawing import AS_IT_IS
from vlm_tune.training.running.steps import Row, Step, Steps, steps_of

LABELS = ["crack"] * 30 + ["dent"] * 10
CHANGED = TrainConfig(augment=Augment(crop=(0.5, 1.0), mixup=0.4), batch_size=6)


def steps(config: TrainConfig, *, epoch: int = 0, rank: int = 0, world_size: int = 1) -> list[Step]:
    made = steps_of(config, LABELS, rank=rank, world_size=world_size)
    made.epoch = epoch
    return [step for (step,) in made]


def test_without_changes_photos_are_seen_as_they_are() -> None:
    assert {row.view for step in steps(TrainConfig()) for row in step.rows} == {AS_IT_IS}
    assert {row.view for step in steps(TrainConfig(augment=Augment())) for row in step.rows} == {AS_IT_IS}


def test_how_photos_are_seen_does_not_depend_on_the_number_of_processes() -> None:
    alone = steps(CHANGED, epoch=2)
    for rank in range(3):
        shared = steps(CHANGED, epoch=2, rank=rank, world_size=3)
        assert [step.everyone for step in shared] == [step.everyone for step in alone]
        assert [step.rows for step in shared] == [
            step.everyone[rank::3] or [Row(step.everyone[0].index, 0.0)] for step in alone
        ]
    assert steps(CHANGED, epoch=2) == alone != steps(CHANGED, epoch=3)


def test_a_photo_that_comes_several_times_is_seen_otherwise_each_time() -> None:
    config = CHANGED.model_copy(update={"sampling": "balanced"})
    rows = [row for step in steps(config) for row in step.rows]
    times = Counter(row.index for row in rows)
    assert max(times.values()) >= 2 and len(set(rows)) == len(rows) == 40
    # Those that are mixed in are drawn as evenly.
    others = Counter(LABELS[row.view.mix.index] for row in rows if row.view.mix is not None)
    assert others["dent"] > 10


def test_each_photo_brings_the_weight_of_its_own_label() -> None:
    config = CHANGED.model_copy(update={"class_weights": {"dent": 4.0}})
    rows = [row for step in steps(config) for row in step.rows]
    weights = {"crack": 40 / 70, "dent": 160 / 70}
    assert all(row.weight == pytest.approx(weights[LABELS[row.index]]) for row in rows)
    mixes = [row.view.mix for row in rows if row.view.mix is not None]
    assert mixes and all(mix.weight == pytest.approx(weights[LABELS[mix.index]]) for mix in mixes)
    assert all(row.examples == (row.index, row.view.mix.index) for row in rows if row.view.mix is not None)


def test_steps_are_announced_some_photos_ahead_and_in_order() -> None:
    announced: list[Row] = []
    made = Steps(lambda epoch: range(200), [1.0] * 200, batch_size=8)
    made.coming = announced.extend
    done = 0
    for (step,) in made:
        done += len(step.rows)
        assert 0 <= len(announced) - done <= 64
        assert len(announced) - done == min(64, 200 - done)
    assert [row.index for row in announced] == list(range(200))


def test_a_large_batch_is_announced_one_step_ahead() -> None:
    announced: list[Row] = []
    made = Steps(lambda epoch: range(300), [1.0] * 300, batch_size=100)
    made.coming = announced.extend
    next(iter(made))
    assert len(announced) == 200
