"""Shots are balanced, always the same ones, and never what is asked about."""

from __future__ import annotations

from collections import Counter

import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import PredictorError, UnknownLabelError
from vlm_tune.predictors import few_shot
from vlm_tune.predictors.shots import check_shots, encoded_shots, shots_note
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.testing import tiny_dataset

TASK = Task(prompt="Which one?", classes=("crack", "dent", "scratch"))
SEVERAL = TASK.model_copy(update={"multi_label": True})


def photos(*labels: str) -> list[Example]:
    return [Example(id=f"{n}.jpg", image=f"{n}".encode(), label=label) for n, label in enumerate(labels)]


def test_every_class_is_shown_as_often() -> None:
    train = tiny_dataset(12).train
    for num_shots in range(1, 10):
        counts = Counter(shot.label for shot in few_shot(train, num_shots))
        assert counts.total() == num_shots
        assert max(counts.values()) - min(counts[label] for label in train.task.classes) <= 1


def test_the_choice_follows_photos_and_seed_and_not_their_order() -> None:
    train = tiny_dataset(12).train
    backwards = Dataset(list(train)[::-1], task=train.task)
    assert few_shot(train, 6) == few_shot(backwards, 6)
    assert few_shot(train, 6) != few_shot(train, 6, seed=1)
    assert few_shot(train, 6)[:3] == few_shot(train, 3)


def test_where_a_class_has_too_few_the_others_fill_up() -> None:
    train = Dataset(photos("crack", "dent", "dent", "dent"), task=TASK)
    assert Counter(shot.label for shot in few_shot(train, 4)) == {"crack": 1, "dent": 3}


def test_one_photo_is_shown_once_however_often_it_is_there() -> None:
    twin = Example(id="twin.jpg", image=b"0", label="crack")
    train = Dataset([*photos("crack", "dent"), twin], task=TASK)
    assert len({shot.content_hash for shot in few_shot(train, 2)}) == 2
    with pytest.raises(PredictorError, match="3 shots among 2 different photos"):
        few_shot(train, 3)
    with pytest.raises(PredictorError, match="cannot choose 0 shots"):
        few_shot(train, 0)


def test_among_lists_of_classes_none_is_shown_too() -> None:
    train = Dataset(photos("crack, dent", "crack", "dent", "none", "none", "scratch", "scratch"), task=SEVERAL)
    shown = [shot.label for shot in few_shot(train, 4)]
    assert "none" in shown
    assert {name for label in shown for name in SEVERAL.members(label)} == set(TASK.classes)


@pytest.mark.parametrize("changed", [{"image": b"other"}, {"id": "renamed.jpg"}, {}])
def test_a_shot_that_is_asked_about_is_refused(changed: dict[str, object]) -> None:
    shots = photos("crack", "dent")
    asked = [Example(id="x.jpg", image=b"x", label="dent"), shots[1].model_copy(update=changed)]
    with pytest.raises(PredictorError, match="is one of the shots"):
        check_shots(shots, asked)
    check_shots(shots, asked[:1])
    check_shots((), asked)


def test_a_photo_that_cannot_be_read_is_no_shot(tmp_path: object) -> None:
    gone = Example.model_validate({"id": "gone.jpg", "image": "/nowhere/gone.jpg", "label": "dent"})
    check_shots(photos("crack"), [gone])


def test_a_whole_training_set_is_no_prompt() -> None:
    with pytest.raises(PredictorError, match="few_shot"):
        check_shots(photos(*["crack"] * 65), photos())


def test_shots_are_encoded_like_every_photo_and_speak_the_tasks_words() -> None:
    train = tiny_dataset(8).train
    [(image, label)] = encoded_shots(train[:1], train.task)
    assert (image.width, label) == (32, train[0].label)
    with pytest.raises(UnknownLabelError, match="shot"):
        encoded_shots(train[:1], TASK)


def test_the_note_lists_the_shots() -> None:
    assert shots_note(()) == ""
    assert "2 examples" in (note := shots_note(photos("crack", "dent")))
    assert "0.jpg: crack; 1.jpg: dent" in note
