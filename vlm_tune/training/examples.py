"""Whether examples are fit to train on and to choose by; what is wrong with them is said before a model loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlm_tune import _console
from vlm_tune.errors import TrainingError
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.running.sampling import example_weights

if TYPE_CHECKING:
    from vlm_tune.data import Dataset

__all__ = ["check_examples"]


def check_examples(train: Dataset, validation: Dataset | None, config: TrainConfig, *, watched: bool = False) -> None:
    """Refuse examples that would be trained on, or chosen by, to no purpose or to a false result.

    Args:
        train: The training examples.
        validation: Held-out examples, if there are any.
        config: What is to be done with them.
        watched: Whether somebody may end training by the accuracy on the validation examples.

    Raises:
        TrainingError: The training examples hold those of another split, or have one label only; a class weight is
            for a label that none has; the validation examples hold the training split, or answer another task, or
            are missing where something goes by them, or are the test split, by which nothing may be chosen.
    """
    labels = [example.label for example in train]
    if train.has_split("test") or train.has_split("validation"):
        raise TrainingError("the examples to train on hold those of other splits: give data.train, not data")
    if len(set(labels)) == 1:
        raise TrainingError(f"all {len(labels)} training examples are {labels[0]!r}: there is nothing to tell apart")
    example_weights(labels, config.class_weights)
    chosen_by = _chosen_by(config, watched)
    if validation is not None:
        _check_held_out(train, validation, chosen_by=chosen_by)
    elif chosen_by:
        raise TrainingError(
            f"{chosen_by} goes by the accuracy on validation examples, and there are none: "
            "fit(data.train, validation=data.validation)"
        )


def _chosen_by(config: TrainConfig, watched: bool) -> str:
    """Return what goes by the validation examples; empty if nothing does."""
    if config.keep == "best":
        return "TrainConfig.keep='best'"
    if config.patience is not None:
        return f"TrainConfig.patience={config.patience}"
    return "after_epoch" if watched else ""


def _check_held_out(train: Dataset, validation: Dataset, *, chosen_by: str) -> None:
    if validation.task != train.task:
        raise TrainingError("training and validation examples have different tasks; give both the same one")
    if validation.has_split("train"):
        raise TrainingError("the validation examples hold the training split: give data.validation, not data")
    if chosen_by and validation.has_split("test"):
        raise TrainingError(
            f"{chosen_by} would choose by the test split, whose accuracy would then be too good; "
            "set a validation split apart: data.split(test=0.25, validation=0.15)"
        )
    trained = {example.content_hash for example in train}
    both = sum(example.content_hash in trained for example in validation)
    if both:
        _console.notice(
            f"{both} of {len(validation)} validation photos are trained on too: "
            "how right the model is on them says little about others."
        )
