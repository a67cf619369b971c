"""Validation goes through the evaluation's own scoring, and the best state survives everything."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.evaluation import Evaluator
from vlm_tune.records import Example
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.training.attach import saved
from vlm_tune.training.running.selection import Seen, Selection, best
from vlm_tune.training.running.stock import Stock
from vlm_tune.vlm import VLM
from vlm_tune.vlm.prompts import answer_ids
from vlm_tune.vlm.scoring import score_labels

# Two steps an epoch.
CONFIG = TrainConfig(
    r=4, lora_alpha=16, learning_rate=5e-3, epochs=4, batch_size=4, lr_scheduler="constant", fast=False
)


@pytest.fixture(scope="module")
def few(colours: Dataset) -> Dataset:
    return Dataset(colours.examples[:8], task=colours.task)


@pytest.fixture(scope="module")
def held_out(colours: Dataset) -> Dataset:
    return Dataset(colours.examples[12:], task=colours.task)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Right answers of eight by step, in the place of what the model would say."""
    right: dict[int, int] = {}
    monkeypatch.setattr(Selection, "_ask", lambda self, step: Seen(step, 0.5, right[step], 8))
    return right


def interrupt(patch: pytest.MonkeyPatch, target: object, name: str, call: int) -> None:
    """Press Ctrl-C in one call of a function."""
    calls, function = itertools.count(1), getattr(target, name)

    def interrupting(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    patch.setattr(target, name, interrupting)


def same(first: Adapter, second: Adapter) -> bool:
    one, other = (load_file(adapter.path / "adapter_model.safetensors") for adapter in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("fast", [True, False])
def test_accuracy_and_loss_are_those_of_the_evaluation(
    bold_vlm: Path, few: Dataset, held_out: Dataset, tmp_path: Path, fast: bool
) -> None:
    config = CONFIG.model_copy(update={"epochs": 1.0, "fast": fast})
    adapter = LoRATrainer(VLM(bold_vlm), config).fit(few, validation=held_out, run_dir=tmp_path)
    (last,) = adapter.training.validation
    assert last.step == 2
    assert last.accuracy == Evaluator(held_out).run(adapter).accuracy

    photos = [images.encode(example.image, max_pixels=held_out.task.max_pixels).data for example in held_out]
    resident = adapter.base.load()
    with resident.adapted(saved(adapter.path)):
        scores = score_labels(resident.model, resident.processor, photos, held_out.task)
    right = [float(scores[row, held_out.task.answers.index(one.label)]) for row, one in enumerate(held_out)]
    tokens = sum(len(answer_ids(resident.processor, one.label)) for one in held_out)
    assert last.loss == pytest.approx(-sum(right) / tokens, rel=1e-4)


def test_answers_of_several_classes_must_match_exactly(bold_qwen3_vl: Path, mixtures: Dataset, tmp_path: Path) -> None:
    few = Dataset(mixtures.examples[:8], task=mixtures.task)
    config = CONFIG.model_copy(update={"epochs": 1.0})
    adapter = LoRATrainer(VLM(bold_qwen3_vl), config).fit(few, validation=few, run_dir=tmp_path)
    (seen,) = adapter.training.validation
    assert seen.accuracy == Evaluator(few).run(adapter).accuracy
    assert seen.loss is not None


def test_generated_answers_have_an_accuracy_and_no_loss(tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path) -> None:
    base = VLM(tiny_qwen3_vl, answer="generate")
    config = CONFIG.model_copy(update={"epochs": 1.0, "fast": True})
    adapter = LoRATrainer(base, config).fit(few, validation=few, run_dir=tmp_path)
    (seen,) = adapter.training.validation
    assert seen.loss is None
    assert seen.accuracy == Evaluator(few).run(adapter).accuracy
    assert adapter.plot().axes


def test_looking_changes_nothing(tiny_qwen3_vl: Path, few: Dataset, held_out: Dataset, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"lora_dropout": 0.2, "epochs": 1.5})
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
    without = trainer.fit(few, run_dir=tmp_path / "without")
    validated = trainer.fit(few, validation=held_out, run_dir=tmp_path / "with")
    assert validated.training.losses == without.training.losses
    assert same(validated, without)


def test_the_best_state_is_kept_and_the_earlier_of_two(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int]
) -> None:
    scripted |= {2: 5, 4: 7, 6: 7, 8: 6}
    base = VLM(tiny_qwen3_vl)
    chosen = LoRATrainer(base, CONFIG.model_copy(update={"keep": "best"})).fit(
        few, validation=few, run_dir=tmp_path / "best"
    )
    shorter = LoRATrainer(base, CONFIG.model_copy(update={"epochs": 2.0})).fit(few, run_dir=tmp_path / "shorter")
    assert chosen.training.kept_step == 4
    assert chosen.training.kept == chosen.training.validation[1]
    assert chosen.training.num_steps == 8
    assert same(chosen, shorter)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["adapter"]


@pytest.mark.parametrize(("right", "steps"), [([7, 7, 7], 6), ([5, 6, 6, 7], 8), ([5, 6, 5, 5], 8)])
def test_patience_ends_after_so_many_epochs_that_are_no_better(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int], right: Sequence[int], steps: int
) -> None:
    scripted |= {2 * epoch + 2: count for epoch, count in enumerate(right)}
    config = CONFIG.model_copy(update={"patience": 2})
    log = LoRATrainer(VLM(tiny_qwen3_vl), config).fit(few, validation=few, run_dir=tmp_path).training
    assert log.num_steps == log.kept_step == steps
    assert log.epochs == steps / 2


def test_a_broken_run_goes_back_to_the_best_state_of_its_checkpoint(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int]
) -> None:
    # Step 4 was best before it broke. What is asked again says otherwise, as rounding on a GPU may.
    scripted |= {2: 6, 4: 7, 6: 5, 8: 5}
    base, config = VLM(tiny_qwen3_vl), CONFIG.model_copy(update={"keep": "best", "save_every": 3})
    trainer = LoRATrainer(base, config)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, Stock, "answers", 6)
        trainer.fit(few, validation=few, run_dir=tmp_path / "broken")
    scripted[4] = 5
    resumed = trainer.fit(few, validation=few, run_dir=tmp_path / "broken")
    unbroken = trainer.fit(few, validation=few, run_dir=tmp_path / "unbroken")
    assert resumed.training.resumed_from == 3
    assert [one.step for one in resumed.training.validation] == [2, 4, 6, 8]
    assert resumed.training.kept_step == unbroken.training.kept_step == 2
    assert same(resumed, unbroken)


def test_a_run_that_is_out_of_patience_is_not_trained_on(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int]
) -> None:
    scripted |= {2: 6, 4: 5}
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), CONFIG.model_copy(update={"patience": 1, "save_every": 2}))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vlm_tune.training.trainer.movement", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        trainer.fit(few, validation=few, run_dir=tmp_path / "broken")
    resumed = trainer.fit(few, validation=few, run_dir=tmp_path / "broken")
    unbroken = trainer.fit(few, validation=few, run_dir=tmp_path / "unbroken")
    assert resumed.training.resumed_from == resumed.training.num_steps == 4
    assert same(resumed, unbroken)


def test_a_photo_that_cannot_be_read_is_left_out_as_in_an_evaluation(
    tiny_qwen3_vl: Path, few: Dataset, colours: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = Example(id="gone", image=tmp_path / "gone.png", label="red")
    (tmp_path / "gone.png").write_bytes(b"no photo")
    config = CONFIG.model_copy(update={"epochs": 2.0})
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), config)
    some = Dataset([*colours.examples, gone], task=colours.task)
    log = trainer.fit(few, validation=some, run_dir=tmp_path / "run").training
    assert [one.accuracy.n for one in log.validation] == [24, 24]
    assert capsys.readouterr().err.count("1 of 25 validation examples cannot be answered; first gone") == 1
    many = Dataset([*few.examples, gone], task=few.task)
    with pytest.raises(TrainingError, match="1 of 9 validation examples cannot be answered; first gone: "):
        trainer.fit(few, validation=many, run_dir=tmp_path / "other")


def test_what_is_missing_is_said_before_anything_loads(
    tiny_qwen3_vl: Path, few: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    for settings, words in (
        ({"keep": "best"}, "keep='best' goes by the accuracy on validation examples"),
        ({"patience": 2}, "patience=2 goes by the accuracy on validation examples"),
        ({"class_weights": {"reed": 2.0}}, "did you mean red"),
    ):
        with pytest.raises(TrainingError, match=words):
            LoRATrainer(VLM(tiny_qwen3_vl), TrainConfig(**settings)).fit(few)


def test_the_best_is_the_earliest_of_the_most_accurate() -> None:
    assert best([Seen(1, 1.0, 3, 4), Seen(2, 0.1, 6, 8), Seen(3, 0.0, 5, 8)]) == 0


def test_whoever_watches_hears_of_every_epoch_and_may_end_it(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int]
) -> None:
    scripted |= {2: 5, 4: 6, 6: 4, 8: 8}
    heard: list[tuple[float, float]] = []

    def watch(epochs: float, accuracy: float) -> bool:
        heard.append((epochs, accuracy))
        return epochs < 3

    trainer = LoRATrainer(VLM(tiny_qwen3_vl), CONFIG)
    log = trainer.fit(few, validation=few, run_dir=tmp_path, after_epoch=watch).training
    assert heard == [(1.0, 5 / 8), (2.0, 6 / 8), (3.0, 4 / 8)]
    assert log.num_steps == log.kept_step == 6
    # It ended early, so that it is not what the same call without a watcher would come to.
    assert trainer.fit(few, validation=few, run_dir=tmp_path).training.num_steps == 8


def test_after_an_interruption_the_epochs_before_are_heard_again(
    tiny_qwen3_vl: Path, few: Dataset, tmp_path: Path, scripted: dict[int, int]
) -> None:
    scripted |= {2: 5, 4: 6, 6: 7, 8: 8}
    heard: list[float] = []

    def watch(epochs: float, accuracy: float) -> bool:
        heard.append(epochs)
        return True

    trainer = LoRATrainer(VLM(tiny_qwen3_vl), CONFIG.model_copy(update={"save_every": 2}))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, Stock, "answers", 6)
        trainer.fit(few, validation=few, run_dir=tmp_path, after_epoch=watch)
    assert heard == [1.0, 2.0]
    heard.clear()
    adapter = trainer.fit(few, validation=few, run_dir=tmp_path, after_epoch=watch)
    assert adapter.training.resumed_from == 4
    assert heard == [1.0, 2.0, 3.0, 4.0]
    heard.clear()
    assert trainer.fit(few, validation=few, run_dir=tmp_path, after_epoch=watch).card == adapter.card
    assert heard == [1.0, 2.0, 3.0, 4.0]


def test_nobody_ends_a_training_by_the_test_split(tiny_qwen3_vl: Path, few: Dataset, held_out: Dataset) -> None:
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), CONFIG)
    tested = Dataset(held_out.examples, task=held_out.task, splits=dict.fromkeys(held_out.ids, "test"))
    with pytest.raises(TrainingError, match="after_epoch would choose by the test split"):
        trainer.check(few, validation=tested, after_epoch=lambda epochs, accuracy: True)
    with pytest.raises(TrainingError, match="after_epoch goes by the accuracy on validation examples"):
        trainer.fit(few, after_epoch=lambda epochs, accuracy: True)
