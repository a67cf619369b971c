"""Checkpoint folders as byte ranges."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vlm_tune.errors import MergeError
from vlm_tune.training.merging import stored
from vlm_tune.training.merging.stored import StoredTensor, open_checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(
        {"a": torch.arange(12.0).reshape(4, 3), "b": torch.ones(4, dtype=torch.bfloat16), "n": torch.tensor(7.0)},
        tmp_path / "1.safetensors",
    )
    save_file(
        {"c": torch.zeros(2, dtype=torch.float16), "i": torch.zeros(3, dtype=torch.int8)}, tmp_path / "2.safetensors"
    )
    index = {"a": "1.safetensors", "b": "1.safetensors", "c": "2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return tmp_path


def test_tensors_of_every_file_are_found_and_read(folder: Path) -> None:
    tensors = open_checkpoint(folder).tensors
    assert set(tensors) == {"a", "b", "n", "c", "i"}
    assert torch.equal(tensors["a"].read(), torch.arange(12.0).reshape(4, 3))
    assert torch.equal(tensors["a"].read(slice(1, 3)), torch.arange(3.0, 9.0).reshape(2, 3))
    assert tensors["b"].read().dtype == torch.bfloat16
    assert tensors["n"].read().tolist() == [7.0]


def test_a_tensor_that_is_in_two_files_is_refused(folder: Path) -> None:
    save_file({"b": torch.zeros(4, dtype=torch.bfloat16)}, folder / "2.safetensors")
    with pytest.raises(MergeError, match=r"1\.safetensors and .*2\.safetensors both have b.*save_pretrained"):
        open_checkpoint(folder)


def test_rows_come_in_blocks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = open_checkpoint(folder).tensors
    for block, rows in ((6, 2), (1, 1), (100, 4), (11, 3)):
        monkeypatch.setattr(stored, "_BLOCK", block)
        parts = [tensors["a"].read(some) for some in tensors["a"].blocks()]
        assert len(parts[0]) == rows
        assert torch.equal(torch.cat(parts), tensors["a"].read())
        assert list(tensors["n"].blocks()) == [slice(0, 1)]


def test_an_empty_tensor_has_no_blocks(tmp_path: Path) -> None:
    save_file({"e": torch.zeros(0, 3)}, tmp_path / "model.safetensors")
    tensor = open_checkpoint(tmp_path).tensors["e"]
    assert list(tensor.blocks()) == []
    assert tensor.read().shape == (0, 3)


def test_untouched_pieces_are_every_byte_but_the_changed_tensors(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    checkpoint = open_checkpoint(folder)
    pieces = checkpoint.untouched(frozenset({"a", "c"}))
    assert {piece.name for piece in pieces} == {
        "the header of 1.safetensors", "the header of 2.safetensors", "config.json", "model.safetensors.index.json",
        "b", "n", "i",
    }  # fmt: skip
    changed = sum(checkpoint.tensors[name].end - checkpoint.tensors[name].begin for name in "ac")
    assert sum(piece.end - piece.begin for piece in pieces) + changed == sum(checkpoint.sizes.values())
    sizes = [piece.end - piece.begin for piece in pieces]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"short", b"\xff" * 64, b"\x02\x00\x00\x00\x00\x00\x00\x00{]", b"\x02\x00\x00\x00\x00\x00\x00\x00[]"],
)
def test_a_file_that_is_cut_off_or_no_safetensors_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(MergeError, match=r"model\.safetensors.*safetensors file"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("change", [-3, 3])
def test_a_file_that_is_shorter_or_longer_than_its_header_says_is_named(folder: Path, change: int) -> None:
    path = folder / "1.safetensors"
    path.write_bytes(path.read_bytes()[:change] if change < 0 else path.read_bytes() + b"abc")
    with pytest.raises(MergeError, match=r"1\.safetensors is cut off, or longer"):
        open_checkpoint(folder)


def test_bytes_that_are_not_a_tensors_shape_are_named(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(MergeError, match=r"gives a 8 bytes, which is not its shape \(3,\)"):
        open_checkpoint(tmp_path)


def test_a_file_that_gets_shorter_while_it_is_read_is_named(folder: Path) -> None:
    tensor = open_checkpoint(folder).tensors["a"]
    (folder / "1.safetensors").write_bytes(b"")
    with pytest.raises(MergeError, match="cut off in a"):
        tensor.read()


def test_quantised_weights_are_refused(folder: Path) -> None:
    with pytest.raises(MergeError, match=r"stores i as I8, which cannot take.*unquantised"):
        StoredTensor("i", folder / "2.safetensors", "I8", (3,), 0, 3).read()


def test_other_weight_formats_are_left_out(folder: Path) -> None:
    for name in ("pytorch_model.bin", ".lock", "config.json", "chat_template.jinja"):
        (folder / name).write_text("x")
    save_file({"old": torch.ones(1)}, folder / "consolidated.safetensors")
    checkpoint = open_checkpoint(folder)
    assert set(checkpoint.sizes) == {
        "1.safetensors", "2.safetensors", "chat_template.jinja", "config.json", "model.safetensors.index.json",
    }  # fmt: skip
    assert checkpoint.left_out == ("consolidated.safetensors", "pytorch_model.bin")
