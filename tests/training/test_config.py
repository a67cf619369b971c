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
    ],
)
def test_a_bad_value_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TrainingError, match=rf"TrainConfig\.{field}"):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("examples", "settings", "steps"),
    [
        (319, {"batch_size": 4, "epochs": 3}, 240),
        (10, {"batch_size": 4, "epochs": 1}, 3),
        (10, {"batch_size": 4, "micro_batch_size": 2, "epochs": 1}, 3),
        (10, {"batch_size": 4, "epochs": 0.5}, 2),
        (1, {"batch_size": 4, "epochs": 0.1}, 1),
    ],
)
def test_steps(examples: int, settings: dict[str, float], steps: int) -> None:
    assert TrainConfig(**settings).num_steps(examples) == steps


def test_fingerprint_ignores_how_often_checkpoints_are_written() -> None:
    assert TrainConfig(save_every=5).fingerprint == TrainConfig().fingerprint
    assert TrainConfig(seed=1).fingerprint != TrainConfig().fingerprint


def test_round_trip() -> None:
    config = TrainConfig(r=8, regions=("language",), epochs=1.5)
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
