"""What is kept of a training says what happened, and nothing that did not."""

from __future__ import annotations

import pytest

from vlm_tune.statistics import wilson
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.log import TrainingLog, ValidationResult, log_of
from vlm_tune.training.proving.audit import TokenAudit
from vlm_tune.training.running.selection import Seen
from vlm_tune.training.running.watch import History

AUDIT = TokenAudit(
    examples=1,
    trained_text={"dent": "dent<|im_end|>"},
    trained_tokens=2,
    total_tokens=9,
    image_tokens=4,
    example_id="a",
    spans=(),
)


class Adapted:
    """Counts parameters as PEFT does: those of the adapter, and all."""

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        return 5, 105


def log(history: History, *, num_examples: int = 8, **config: object) -> TrainingLog:
    settings = TrainConfig.model_validate({"batch_size": 4, "epochs": 2, **config})
    return log_of(settings, num_examples, history, AUDIT, (), Adapted())  # type: ignore[arg-type]


def history(num_steps: int = 4, *, right: tuple[int, ...] = ()) -> History:
    return History(
        losses=[1 / (step + 1) for step in range(num_steps)],
        learning_rates=[0.1] * num_steps,
        validation=[Seen(2 * (at + 1), 0.5, count, 10) for at, count in enumerate(right)],
        seconds=2.0,
    )


def test_numbers_follow_from_what_happened() -> None:
    found = log(history())
    assert (found.num_steps, found.kept_step, found.epochs) == (4, 4, 2)
    assert found.samples_per_second == 8
    assert found.trained_share == 0.05
    assert found.final_loss == 0.25
    assert log(history(30), num_examples=60).final_loss == pytest.approx((1 / 28 + 1 / 29 + 1 / 30) / 3)


def test_a_training_that_stopped_early_has_fewer_epochs() -> None:
    assert log(history(3)).epochs == 1.5


@pytest.mark.parametrize(("keep", "step"), [("last", 4), ("best", 2)])
def test_the_kept_state_is_the_last_or_the_most_accurate(keep: str, step: int) -> None:
    found = log(history(right=(9, 7)), keep=keep)
    assert found.kept_step == step
    assert found.kept == ValidationResult(step=step, loss=0.5, accuracy=wilson(9 if keep == "best" else 7, 10))


def test_the_frame_has_a_row_a_step_and_validation_where_it_was() -> None:
    frame = log(history(right=(9, 7))).frame()
    assert list(frame["step"]) == [1, 2, 3, 4]
    assert frame["validation_accuracy"].dropna().to_dict() == {1: 0.9, 3: 0.7}
    assert frame["learning_rate"].tolist() == [0.1] * 4


def test_the_plot_draws_validation_only_where_there_was_some() -> None:
    assert len(log(history()).plot().axes) < len(log(history(right=(9, 7))).plot().axes)
