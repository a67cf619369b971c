import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import photo
from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, StorageError, TrainingError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.training.running.batches import Batches
from vlm_tune.vlm import VLM

QUICK = TrainConfig(r=4, lora_alpha=16, learning_rate=5e-3, epochs=2, save_every=2, lora_dropout=0.1)


def weights(adapter: Adapter) -> dict[str, torch.Tensor]:
    return load_file(adapter.path / "adapter_model.safetensors")


def same(first: Adapter, second: Adapter) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.allclose(one[k], other[k], atol=1e-6, rtol=0) for k in one)


def scores(predictor: VLM | Adapter, data: Dataset) -> dict[str, dict[str, float]]:
    return {p.example_id: dict(p.scores or {}) for p in predictor.predict(data.examples, data.task)}


def test_fit_leaves_the_base_bit_for_bit_as_it_was(tiny_vlm: Path, colours: Dataset, tmp_path: Path) -> None:
    base = VLM(tiny_vlm)
    model = base.load().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, answers = model.config.to_dict(), scores(base, colours)
    adapter = LoRATrainer(base, QUICK).fit(colours, run_dir=tmp_path)
    after = model.state_dict()
    assert base.load().model is model
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert model.config.to_dict() == config
    assert scores(base, colours) == answers
    assert scores(adapter, colours) != answers


def test_what_fit_leaves_on_disk(tiny_vlm: Path, colours: Dataset, tmp_path: Path) -> None:
    adapter = LoRATrainer(VLM(tiny_vlm), QUICK).fit(colours, run_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    names = {path.name for path in adapter.path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "vlm_tune.json"}
    card = json.loads((adapter.path / "vlm_tune.json").read_text())
    assert card["base"]["source"] == VLM(tiny_vlm).source
    assert card["task"]["prompt"] == "Which colour?"
    log = adapter.training
    assert log.num_steps == len(log.losses) == 12
    assert 0 < log.trained_share < 1 and 0 < log.audit.trained_tokens < log.audit.total_tokens
    assert log.samples_per_second > 0


def test_a_finished_run_is_not_done_again(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = VLM(tiny_qwen3_vl)
    first = LoRATrainer(base, QUICK).fit(colours, run_dir=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("vlm_tune.training.trainer.run", lambda job: pytest.fail("trained again"))
        again = LoRATrainer(base, QUICK.model_copy(update={"save_every": 5})).fit(colours, run_dir=tmp_path)
    assert again.card == first.card
    other = LoRATrainer(base, QUICK.model_copy(update={"seed": 1})).fit(colours, run_dir=tmp_path)
    assert other.card.inputs != first.card.inputs
    assert other.path == first.path


def test_other_photos_under_the_same_names_are_other_inputs(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path
) -> None:
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), QUICK)
    first = trainer.fit(colours, run_dir=tmp_path).card.inputs
    changed = Example(id=colours[0].id, image=photo(colours[0].label, 99), label=colours[0].label)
    data = Dataset([changed, *colours.examples[1:]], task=colours.task)
    assert trainer.fit(data, run_dir=tmp_path).card.inputs != first


@pytest.mark.parametrize(("family", "save_every"), [("qwen3_vl", 2), ("lfm2_vl", None)])
def test_an_interrupted_run_ends_like_an_unbroken_one(
    request: pytest.FixtureRequest,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    save_every: int | None,
) -> None:
    monkeypatch.setattr("vlm_tune.training.running.watch.WORTH_SAVING_S", 0.0)
    base = VLM(request.getfixturevalue(f"tiny_{family}"))
    config = QUICK.model_copy(update={"save_every": save_every})
    trainer = LoRATrainer(base, config)
    unbroken = trainer.fit(colours, run_dir=tmp_path / "unbroken")
    model = base.load().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    with interrupted_at(11):
        trainer.fit(colours, run_dir=tmp_path / "broken")
    assert not (tmp_path / "broken" / "adapter").exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    resumed = trainer.fit(colours, run_dir=tmp_path / "broken")
    assert resumed.training.resumed_from > 0
    assert resumed.training.losses == pytest.approx(unbroken.training.losses, abs=1e-6)
    assert same(resumed, unbroken)
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["adapter"]


@contextmanager
def interrupted_at(batch: int) -> Iterator[None]:
    """Press Ctrl-C while a batch is put together."""
    calls, stack = itertools.count(1), Batches.stack

    def interrupting(self: Batches, rows: list) -> dict:
        if next(calls) == batch:
            raise KeyboardInterrupt
        return stack(self, rows)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Batches, "stack", interrupting)
        yield


def test_checkpoints_of_another_configuration_are_not_used(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path
) -> None:
    base = VLM(tiny_qwen3_vl)
    with interrupted_at(11):
        LoRATrainer(base, QUICK).fit(colours, run_dir=tmp_path)
    other = LoRATrainer(base, QUICK.model_copy(update={"r": 2})).fit(colours, run_dir=tmp_path)
    assert other.training.resumed_from == 0


def test_validation_must_ask_the_same_question(tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path) -> None:
    other = colours.with_task(Task(prompt="What colour is it?", classes=colours.task.classes))
    with pytest.raises(TrainingError, match="different tasks"):
        LoRATrainer(VLM(tiny_qwen3_vl), QUICK).fit(colours, validation=other, run_dir=tmp_path)


def test_wrong_parts_are_refused_before_anything_loads(
    tiny_qwen3_vl: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), TrainConfig(kinds=("conv",)))
    for start in (trainer.fit, trainer.overfit):
        with pytest.raises(AdapterError, match="conv"):
            start(colours)


def test_a_folder_of_something_else_is_not_overwritten(tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "vlm_tune.json").write_text('{"schema_version": 99}')
    with pytest.raises(StorageError, match="choose another run_dir"):
        LoRATrainer(VLM(tiny_qwen3_vl), QUICK).fit(colours, run_dir=tmp_path)


def test_a_folder_that_cannot_be_made_is_found_before_anything_loads(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(StorageError, match="cannot write"):
        LoRATrainer(VLM(tiny_qwen3_vl), QUICK).fit(colours, run_dir=tmp_path / "file")


def test_an_adapter_whose_weights_are_gone_is_trained_again(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path
) -> None:
    config = QUICK.model_copy(update={"epochs": 0.5, "save_every": None})
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
    (trainer.fit(colours, run_dir=tmp_path).path / "adapter_model.safetensors").unlink()
    assert weights(trainer.fit(colours, run_dir=tmp_path))


def test_without_a_run_dir_the_inputs_name_the_folder(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = LoRATrainer(VLM(tiny_qwen3_vl), QUICK).fit(colours)
    assert adapter.path == Path("runs") / adapter.card.inputs / "adapter"


def test_an_unreadable_photo_is_found_before_training(tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path) -> None:
    missing = Example(id="gone", image=tmp_path / "gone.png", label="red")
    data = Dataset([*colours.examples, missing], task=colours.task)
    with pytest.raises(Exception, match=r"gone\.png"):
        LoRATrainer(VLM(tiny_qwen3_vl), QUICK).fit(data, run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "adapter").exists()
