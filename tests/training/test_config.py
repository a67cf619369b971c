import math

import pytest

from vlm_tune.errors import TrainingError
from vlm_tune.training import TrainConfig


def test_defaults_are_those_of_the_experiment() -> None:
    config = TrainConfig()
    assert (config.r, config.lora_alpha, config.learning_rate) == (64, 16, 2e-4)
    assert (config.batch_size, config.epochs, config.kinds) == (4, 3, ("attention",))
    assert config.regions == ("vision", "projector", "language")
    assert config.scale == 0.25


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0),
        ("epochs", 0),
        ("learning_rate", -1e-4),
        ("batch_size", 0),
        ("gradient_accumulation", 0),
        ("lora_dropout", 1.0),
        ("regions", ()),
        ("kinds", ()),
        ("kinds", ("attention", "attention")),
        ("regions", ("visual",)),
        ("save_every", 0),
        ("lr_scheduler", "polynomial"),
        ("rank", 8),
        ("epochs", math.inf),
        ("learning_rate", math.inf),
        ("weight_decay", math.inf),
        ("lora_alpha", math.inf),
        ("max_grad_norm", math.inf),
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=rf"TrainConfig\.{field}"):
        TrainConfig(**{field: value})


def test_an_unknown_name_is_told_the_nearest() -> None:
    with pytest.raises(TrainingError, match="did you mean learning_rate"):
        TrainConfig.model_validate({"learning_rat": 1e-4})


def test_a_bad_weight_is_told_from_a_bad_word() -> None:
    with pytest.raises(TrainingError, match=r"class_weights\.crack: .*greater than 0, got 0"):
        TrainConfig(class_weights={"crack": 0})


@pytest.mark.parametrize(
    ("examples", "settings", "steps"),
    [
        (319, {"batch_size": 4, "epochs": 3}, 240),
        (10, {"batch_size": 4, "epochs": 1}, 3),
        (10, {"batch_size": 4, "micro_batch_size": 2, "epochs": 1}, 3),
        (10, {"batch_size": 4, "epochs": 0.5}, 2),
        (1, {"batch_size": 4, "epochs": 0.1}, 1),
        (10, {"batch_size": 1, "epochs": 1.1}, 11),
        (10, {"batch_size": 4, "epochs": 1e-9}, 1),
    ],
)
def test_steps(examples: int, settings: dict[str, float], steps: int) -> None:
    assert TrainConfig(**settings).num_steps(examples) == steps


@pytest.mark.parametrize(
    "settings", [{"save_every": 5}, {"micro_batch_size": 1}, {"gradient_checkpointing": True}], ids=str
)
def test_fingerprint_ignores_what_changes_no_result(settings: dict[str, int]) -> None:
    assert TrainConfig(**settings).fingerprint == TrainConfig().fingerprint


def test_fingerprint_tells_other_trainings_apart() -> None:
    assert TrainConfig(seed=1).fingerprint != TrainConfig().fingerprint


def test_round_trip() -> None:
    config = TrainConfig(r=8, regions=("language",), epochs=1.5)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
