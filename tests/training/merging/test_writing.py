"""Copying with hashes, and the memory that writing takes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_tune import _console
from vlm_tune.errors import MergeError
from vlm_tune.training.merging import stored, writing
from vlm_tune.training.merging.crew import crew
from vlm_tune.training.merging.stored import Piece, open_checkpoint
from vlm_tune.training.merging.updates import LowRank, Term, Whole
from vlm_tune.training.merging.writing import hashed, write


def test_a_piece_is_copied_to_its_place_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_CHUNK", 7)
    (tmp_path / "there").mkdir()
    data = bytes(range(100))
    (tmp_path / "file").write_bytes(data)
    (tmp_path / "there" / "file").write_bytes(bytes(100))
    piece = Piece("some", "file", 10, 33)
    want = hashlib.sha256(data[10:33]).hexdigest()
    assert hashed(tmp_path, piece, into=tmp_path / "there") == want == hashed(tmp_path / "there", piece)
    assert (tmp_path / "there" / "file").read_bytes() == bytes(10) + data[10:33] + bytes(67)
    with pytest.raises(MergeError, match="ends within more"):
        hashed(tmp_path, Piece("more", "file", 90, 101))


@pytest.mark.parametrize(
    ("block", "device"), [(1, "cpu"), (50, "cpu"), (10**6, "cpu"), pytest.param(50, "cuda", marks=pytest.mark.gpu)]
)
def test_changed_tensors_are_written_a_block_at_a_time(
    block: int, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(stored, "_BLOCK", block)
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    base = {"w": noise(9, 11).bfloat16(), "c": noise(4, 3, 2, 2).half(), "s": torch.tensor(1.0), "k": noise(5)}
    new = {"a": noise(2, 11), "b": noise(9, 2), "m": noise(9).abs(), "c": noise(4, 3, 2, 2), "s": torch.tensor(2.0)}
    for folder, tensors in (("base", base), ("new", new)):
        (tmp_path / folder).mkdir()
        save_file(tensors, tmp_path / folder / "model.safetensors")
    checkpoint, own = open_checkpoint(tmp_path / "base"), open_checkpoint(tmp_path / "new").tensors
    changes = {"w": LowRank((Term(own["a"], own["b"], 0.3),), own["m"]), "c": Whole(own["c"]), "s": Whole(own["s"])}
    (tmp_path / "out").mkdir()
    with crew(device) as threads, _console.progress("", total=None) as bar:
        hashes = write(checkpoint, changes, tmp_path / "out", crew=threads, bar=bar)
    assert sorted(piece.name for piece in hashes) == ["k", "the header of model.safetensors"]

    after = load_file(tmp_path / "out" / "model.safetensors")
    total = base["w"].double() + 0.3 * new["b"].double() @ new["a"].double()
    exact = new["m"].double()[:, None] * total / total.square().sum(1, keepdim=True).sqrt()
    assert torch.equal(after["w"], exact.bfloat16())
    assert torch.equal(after["c"], new["c"].half())
    assert torch.equal(after["s"], new["s"])
    assert torch.equal(after["k"], base["k"])
