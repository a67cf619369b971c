from pathlib import Path

import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.training import LoRATrainer, TrainConfig
from vlm_tune.training.running.trackers import require_trackers
from vlm_tune.vlm import VLM


def test_a_tracker_that_is_not_installed_is_said_before_anything_loads(
    tiny_qwen3_vl: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    monkeypatch.setattr("vlm_tune.training.running.trackers.find_spec", lambda name: None)
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), TrainConfig(report_to=("wandb", "mlflow")))
    with pytest.raises(TrainingError, match=r"wandb, mlflow, not installed here; run: pip install wandb mlflow"):
        trainer.fit(colours)
    require_trackers(())


# protobuf's own code, at import.
@pytest.mark.filterwarnings("ignore:Type google._upb:DeprecationWarning")
def test_tensorboard_gets_losses_rates_and_accuracy_beside_the_adapter(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(r=4, learning_rate=5e-3, epochs=2, report_to=("tensorboard",))
    data = Dataset(colours.examples[:8], task=colours.task)
    log = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(data, validation=data, run_dir=tmp_path).training
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "logs"]

    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "eval/accuracy", "eval/loss"} <= set(events.Tags()["scalars"])
    (first, *_) = events.Scalars("train/loss")
    assert (first.step, first.value) == (1, pytest.approx(log.losses[0], rel=1e-4))
    seen = [(one.step, one.value) for one in events.Scalars("eval/accuracy")]
    assert seen == [(one.step, pytest.approx(one.accuracy.value)) for one in log.validation]
