"""Byte ranges of safetensors files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_tune.errors import MergeError
from vlm_tune.training.merging.stored import copy_files, same_bytes, stored_tensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(
        {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)},
        tmp_path / "1.safetensors",
    )
    save_file({"c": torch.zeros(2, dtype=torch.float16)}, tmp_path / "2.safetensors")
    return tmp_path


def test_tensors_of_every_shard_are_found_and_read(folder: Path) -> None:
    tensors = stored_tensors(folder)
    assert set(tensors) == {"a", "b", "c"}
    assert torch.equal(tensors["a"].read(), torch.arange(6.0).reshape(2, 3))
    assert tensors["b"].read().dtype == torch.bfloat16


def test_overwriting_changes_that_tensor_alone(folder: Path) -> None:
    tensors = stored_tensors(folder)
    tensors["a"].overwrite(torch.full((2, 3), 7.0))
    loaded = load_file(folder / "1.safetensors")
    assert torch.equal(loaded["a"], torch.full((2, 3), 7.0))
    assert torch.equal(loaded["b"], torch.ones(4, dtype=torch.bfloat16))


@pytest.mark.parametrize("value", [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.bfloat16)])
def test_overwriting_with_another_shape_or_type_is_refused(folder: Path, value: torch.Tensor) -> None:
    with pytest.raises(MergeError, match="does not fit"):
        stored_tensors(folder)["a"].overwrite(value)


def test_same_bytes_sees_one_changed_bit(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "1.safetensors").write_bytes((folder / "1.safetensors").read_bytes())
    first, second = stored_tensors(folder)["b"], stored_tensors(other)["b"]
    assert same_bytes(first, second)
    second.overwrite(torch.tensor([1, 1, 1, 1.0078125], dtype=torch.bfloat16))
    assert not same_bytes(first, second)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_file_that_is_cut_off_or_empty_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MergeError, match="safetensors"):
        stored_tensors(tmp_path)


def test_a_cut_off_tensor_is_named(folder: Path) -> None:
    path = folder / "1.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(MergeError, match="cut off"):
        stored_tensors(folder)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    save_file({"q": torch.zeros(2, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(MergeError, match="unquantised"):
        stored_tensors(tmp_path)["q"].read()


def test_other_weight_formats_are_not_copied(folder: Path) -> None:
    for name in ("pytorch_model.bin", ".lock", "config.json", "chat_template.jinja"):
        (folder / name).write_text("x")
    assert [path.name for path in copy_files(folder)] == [
        "1.safetensors", "2.safetensors", "chat_template.jinja", "config.json",
    ]  # fmt: skip
