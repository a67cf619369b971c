from pathlib import Path

import pytest
import torch

from tests.training.running.faults import SHORT
from vlm_tune.data import Dataset
from vlm_tune.training import LoRATrainer
from vlm_tune.training.running import store as module
from vlm_tune.training.running.store import Store
from vlm_tune.vlm import VLM

CPU = torch.device("cpu")


def values(number: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.full((number,), float(number))}


def test_what_fits_is_kept_as_a_copy() -> None:
    store, one = Store(CPU, [0, 1]), values(10)
    store.put(0, one)
    one["pixel_values"].zero_()
    assert store.place == "host" and 0 in store and not store.full
    assert store.get(0)["pixel_values"].sum() == 100


def test_what_cannot_fit_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "memory_bytes", lambda: 1000)
    store = Store(CPU, range(100))
    store.put(0, values(10))
    assert store.place == "nowhere" and store.full and 0 not in store


def test_photos_larger_than_the_first_are_kept_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    # A quarter of 1600 bytes, for what by the first looks like 160.
    monkeypatch.setattr(module, "memory_bytes", lambda: 1600)
    store = Store(CPU, range(4))
    for index, number in enumerate((10, 70, 70, 10)):
        store.put(index, values(number))
        assert store.full == (index > 1)
    assert [index in store for index in range(4)] == [True, True, False, False]


def test_dropped_is_dropped_for_good() -> None:
    store = Store(CPU, [0])
    store.put(0, values(1))
    store.drop()
    store.put(0, values(1))
    assert 0 not in store and store.full


def test_photos_that_are_not_kept_are_read_again(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full: list[bool] = []
    trainer = LoRATrainer(VLM(tiny_qwen3_vl), SHORT)
    kept = trainer.fit(colours, run_dir=tmp_path / "kept").training.losses

    def put(store: Store, index: int, tensors: dict[str, torch.Tensor]) -> None:
        # As if the first had been a fifth of the others.
        monkeypatch.setattr(module, "memory_bytes", lambda: 4 * 5 * sum(one.nbytes for one in tensors.values()))
        store.place = "host"
        before(store, index, tensors)
        full.append(store.full)

    before = Store.put
    monkeypatch.setattr(Store, "put", put)
    trainer.base.load().kept.clear()
    again = trainer.fit(colours, run_dir=tmp_path / "again").training.losses
    assert full[0] is False and full[-1] is True
    assert again == kept


def test_the_next_training_finds_what_the_one_before_has_left() -> None:
    kept: dict[str, object] = {}
    first = Store(CPU, ["a", "b"], kept=kept)
    first.put(0, values(3))
    first.put(1, values(4))
    first.leave()
    second = Store(CPU, ["b", "c"], kept=kept)
    assert 0 in second and 1 not in second and second.place is None
    assert second.get(0)["pixel_values"].tolist() == [4.0] * 4
    second.put(1, values(5))
    assert second.fresh == [1] and first.fresh == [0, 1]


def test_what_others_have_left_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, object] = {}
    monkeypatch.setattr(module, "memory_bytes", lambda: 4 * 100)
    first = Store(CPU, ["a", "b"], kept=kept)
    for index in range(2):
        first.put(index, values(10))
    second = Store(CPU, ["b", "c"], kept=kept)
    second.put(1, values(12))
    assert [index in first for index in range(2)] == [False, True]
    assert [index in second for index in range(2)] == [True, True]
    assert not second.full


def test_photos_that_are_the_same_are_kept_once() -> None:
    store = Store(CPU, ["a", "a"])
    store.put(0, values(3))
    assert 0 in store and 1 in store
