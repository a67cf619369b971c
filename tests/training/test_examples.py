import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.task import Task
from vlm_tune.training import TrainConfig
from vlm_tune.training.examples import check_examples

BEST = TrainConfig(keep="best")


@pytest.fixture
def parts(colours: Dataset) -> Dataset:
    return colours.split(test=0.25, validation=0.25, seed=0)


def test_splits_that_are_kept_apart_are_taken_without_a_word(parts: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    check_examples(parts.train, parts.validation, BEST)
    check_examples(parts.train, parts.test, TrainConfig())
    assert capfd.readouterr() == ("", "")


def test_the_whole_data_set_is_not_trained_on_by_mistake(parts: Dataset) -> None:
    with pytest.raises(TrainingError, match=r"give data\.train"):
        check_examples(parts, None, TrainConfig())
    with pytest.raises(TrainingError, match=r"give data\.validation"):
        check_examples(parts.train, parts, TrainConfig())


def test_nothing_is_chosen_by_the_test_split(parts: Dataset) -> None:
    for config in (BEST, TrainConfig(patience=1)):
        with pytest.raises(TrainingError, match="would choose by the test split"):
            check_examples(parts.train, parts.test, config)


def test_one_label_alone_teaches_nothing(colours: Dataset) -> None:
    with pytest.raises(TrainingError, match="all 8 training examples are 'red'"):
        check_examples(colours.filter(lambda example: example.label == "red"), None, TrainConfig())


def test_photos_on_both_sides_are_told(colours: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    check_examples(colours, colours.subset(6), BEST)
    assert "6 of 6 validation photos are trained on too" in " ".join(capfd.readouterr().err.split())


def test_what_is_missing_is_asked_for(colours: Dataset) -> None:
    for config, words in (
        (BEST, "keep='best' goes by the accuracy on validation examples"),
        (TrainConfig(patience=2), "patience=2 goes by the accuracy on validation examples"),
        (TrainConfig(class_weights={"reed": 2.0}), "did you mean red"),
    ):
        with pytest.raises(TrainingError, match=words):
            check_examples(colours, None, config)


def test_validation_must_ask_the_same_question(colours: Dataset) -> None:
    other = colours.with_task(Task(prompt="What colour is it?", classes=colours.task.classes))
    with pytest.raises(TrainingError, match="different tasks"):
        check_examples(colours, other, TrainConfig())
