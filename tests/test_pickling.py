"""What goes to other processes pickles: without loaded weights, clients, locks, or what one machine says."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import vlm_tune as vt
from vlm_tune import errors
from vlm_tune.testing import tiny_dataset


def there(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301


def test_a_model_goes_without_its_weights_and_without_what_this_machine_says(tiny_qwen3_vl: Path) -> None:
    base = vt.VLM(tiny_qwen3_vl, batch_size=3, name="mine")
    base.load()
    fingerprint, family = base.fingerprint, base.config.model_type
    data = pickle.dumps(base)
    assert len(data) < 1000
    copy = pickle.loads(data)  # noqa: S301
    assert not {"config", "source", "fingerprint", "_dtype"} & vars(copy).keys()
    assert (copy.name, copy.batch_size, copy.fingerprint, copy.config.model_type) == ("mine", 3, fingerprint, family)


def test_a_trainer_and_its_data_go(tiny_qwen3_vl: Path) -> None:
    data = tiny_dataset(4)
    trainer = vt.LoRATrainer(vt.VLM(tiny_qwen3_vl), vt.TrainConfig(epochs=2, learning_rate=1e-3))
    copy, data_copy = there((trainer, data))
    assert copy.config == trainer.config and copy.base.fingerprint == trainer.base.fingerprint
    assert data_copy.fingerprint == data.fingerprint and data_copy.train.ids == data.train.ids
    assert data_copy.task == data.task


def test_an_embedder_goes_without_its_weights() -> None:
    embedder = vt.OpenClip("ViT-S-32", weights=None)
    vars(embedder)["_loaded"] = object, lambda: None
    copy = there(embedder)
    assert "_loaded" not in vars(copy) and copy.name == embedder.name


@pytest.mark.parametrize("kind", ["majority", "knn", "gemini", "openai"])
def test_predictors_go(kind: str) -> None:
    data = tiny_dataset(4)
    makers: dict[str, Callable[[], vt.Predictor]] = {
        "majority": lambda: vt.Baseline.majority(data.train),
        "knn": lambda: vt.Baseline.knn(data.train),
        "gemini": lambda: vt.Gemini("gemini-3-flash-preview", api_key="a key"),
        "openai": lambda: vt.OpenAICompatible("http://localhost:1/v1", model="mine", api_key="a key"),
    }
    predictor = makers[kind]()
    copy = there(predictor)
    assert isinstance(copy, vt.Predictor)
    assert (copy.name, copy.fingerprint) == (predictor.name, predictor.fingerprint)


def test_a_ledger_leaves_calls_in_flight_behind() -> None:
    gemini = vt.Gemini("gemini-3-flash-preview", api_key="a key")
    gemini.ledger.settle(gemini.ledger.send(0.5), paid_usd=0.25)
    gemini.ledger.send(0.5)
    copy: vt.Gemini = there(gemini)
    assert (copy.ledger.paid_usd, copy.ledger.num_pending, copy.ledger.committed_usd) == (0.25, 0, 0.25)
    assert gemini.ledger.num_pending == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.ImageError(Path("7.jpg"), "it is cut off"),
        errors.StoppedError(step=3, num_steps=9, checkpoints=Path("runs")),
        errors.BudgetError("too dear", spent_usd=1.5, num_left=4),
        errors.UnknownLabelError("scrach", ["scratch", "dent"]),
        errors.MissingExtraError("ray", extra="ray", purpose="RayBackend"),
    ],
)
def test_errors_go_with_their_words_and_what_they_carry(error: errors.VlmTuneError) -> None:
    error.add_note("on the worker")
    copy = there(error)
    assert type(copy) is type(error)
    assert (str(copy), vars(copy)) == (str(error), vars(error))
