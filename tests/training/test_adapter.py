import shutil
from pathlib import Path

import pytest

from tests import models
from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, ModelError, StorageError
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM

CONFIG = TrainConfig(r=8, lora_alpha=32, learning_rate=1e-2, epochs=3)


@pytest.fixture(scope="module")
def adapter(bold_qwen3_vl: Path, colours: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return LoRATrainer(VLM(bold_qwen3_vl), CONFIG).fit(colours, run_dir=tmp_path_factory.mktemp("run"))


def answers(predictor: Adapter | VLM, data: Dataset) -> dict[str, str | None]:
    return {p.example_id: p.label for p in predictor.predict(data.examples, data.task)}


def test_it_answers_like_any_predictor_and_leaves_the_base(adapter: Adapter, colours: Dataset) -> None:
    base = answers(adapter.base, colours)
    tuned = answers(adapter, colours)
    truth = {example.id: example.label for example in colours}
    assert sum(tuned[key] == truth[key] for key in truth) > sum(base[key] == truth[key] for key in truth)
    assert answers(adapter.base, colours) == base
    prediction = next(iter(adapter.predict(colours.examples[:1], colours.task)))
    assert prediction.scores is not None
    assert adapter.fingerprint in (prediction.model_version or "")


def test_half_read_answers_keep_the_base_busy_and_let_go(adapter: Adapter, colours: Dataset) -> None:
    stream = adapter.predict(colours.examples, colours.task)
    next(iter(stream))
    with pytest.raises(ModelError, match="adapter"):
        list(adapter.base.predict(colours.examples, colours.task))
    stream.close()
    assert len(answers(adapter.base, colours)) == len(colours)


def test_load_gives_the_same_adapter(adapter: Adapter, colours: Dataset) -> None:
    loaded = Adapter.load(adapter.path)
    assert loaded.card == adapter.card
    assert loaded.fingerprint == adapter.fingerprint
    assert answers(loaded, colours) == answers(adapter, colours)


def test_it_is_refused_on_another_base(adapter: Adapter, tmp_path: Path) -> None:
    other = VLM(models.tiny_qwen3_vl(tmp_path / "other", seed=1))
    with pytest.raises(AdapterError, match="only means something on its own base"):
        Adapter.load(adapter.path, base=other)


def test_another_adapter_has_another_fingerprint(adapter: Adapter, colours: Dataset, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"seed": 1, "epochs": 1.0})
    other = LoRATrainer(adapter.base, config).fit(colours, run_dir=tmp_path)
    assert len({adapter.fingerprint, other.fingerprint, adapter.base.fingerprint}) == 3


def test_a_folder_that_is_none(tmp_path: Path, adapter: Adapter) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        Adapter.load(tmp_path)
    shutil.copytree(adapter.path, tmp_path / "copy")
    (tmp_path / "copy" / "vlm_tune.json").write_text("{}")
    with pytest.raises(StorageError, match="not an adapter's card"):
        Adapter.load(tmp_path / "copy")


def test_show_frame_plot(adapter: Adapter, capsys: pytest.CaptureFixture[str]) -> None:
    adapter.show()
    assert "examples/s" in capsys.readouterr().out
    assert list(adapter.frame()["loss"]) == list(adapter.training.losses)
    assert adapter.frame()["validation_accuracy"].isna().all()
    assert len(adapter.plot().axes) == 1


def test_what_the_validation_examples_said_is_shown(
    bold_qwen3_vl: Path, colours: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = colours.split(test=0.0, validation=0.25, seed=0)
    config = CONFIG.model_copy(update={"keep": "best", "region_learning_rates": {"vision": 1e-30}})
    trainer = LoRATrainer(VLM(bold_qwen3_vl), config)
    adapter = trainer.fit(data.train, validation=data.validation, run_dir=tmp_path)
    assert "The vision layers did not move" in capsys.readouterr().err
    log = Adapter.load(adapter.path).training
    assert log == adapter.training
    assert log.kept is not None and log.kept.accuracy.n == len(data.validation)
    adapter.show()
    shown = capsys.readouterr().out
    assert f"accuracy {log.kept.accuracy}, after step {log.kept_step}" in shown
    assert log.audit.headline in shown and "projector" in shown and "moved" in shown
    frame = adapter.frame().dropna()
    assert list(frame["step"]) == [one.step for one in log.validation]
    assert list(frame["validation_accuracy"]) == [one.accuracy.value for one in log.validation]
    assert list(frame["validation_loss"]) == [one.loss for one in log.validation]
    assert len(adapter.plot().axes) == 2
