"""Settings say in one line what is wrong with them, and name the field."""

from __future__ import annotations

import pytest

from vlm_tune.errors import TrainingError
from vlm_tune.training import Augment, TrainConfig


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: TrainConfig(learnin_rate=1e-4), r"TrainConfig\.learnin_rate: .*did you mean .*learning_rate"),
        (lambda: TrainConfig(epochs=0), r"TrainConfig\.epochs: .*greater than 0, got 0"),
        (lambda: Augment(mix_up=0.2), r"Augment\.mix_up: .*did you mean .*mixup"),
        (lambda: Augment(cutmix=-1), r"Augment\.cutmix: .*got -1"),
    ],
)
def test_the_field_is_named(make: object, words: str) -> None:
    with pytest.raises(TrainingError, match=words) as raised:
        make()
    assert "\n" not in str(raised.value)
