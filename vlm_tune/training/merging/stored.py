"""A checkpoint folder as named byte ranges, so that single tensors are read and overwritten in place."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.errors import MergeError

if TYPE_CHECKING:
    import torch

__all__ = ["StoredTensor", "copy_files", "same_bytes", "stored_tensors"]

_OTHER_WEIGHTS = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth")
_CHUNK = 16 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: where its bytes lie."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self) -> torch.Tensor:
        """Return the tensor, read from disk."""
        import torch

        with self.file.open("rb") as file:
            file.seek(self.begin)
            data = bytearray(file.read(self.end - self.begin))
        return torch.frombuffer(data, dtype=_torch_dtype(self.dtype)).reshape(self.shape)

    def overwrite(self, value: torch.Tensor) -> None:
        """Replace the bytes by those of a tensor of the same shape and type."""
        import torch

        if tuple(value.shape) != self.shape or value.dtype != _torch_dtype(self.dtype):
            raise MergeError(f"a {value.dtype} {tuple(value.shape)} does not fit {self.dtype} {self.shape}")
        with self.file.open("r+b") as file:
            file.seek(self.begin)
            file.write(value.contiguous().view(torch.uint8).numpy().tobytes())


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Return every tensor of the safetensors files in a folder, by name.

    Raises:
        MergeError: There are none, or a file is cut off.
    """
    found: dict[str, StoredTensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found.update(_read_header(path))
    if not found:
        raise MergeError(f"{folder} holds no .safetensors weights; save the base model with safe_serialization")
    return found


def same_bytes(first: StoredTensor, second: StoredTensor) -> bool:
    """Return whether two stored tensors are equal byte for byte."""
    if first.end - first.begin != second.end - second.begin:
        return False
    with first.file.open("rb") as a, second.file.open("rb") as b:
        a.seek(first.begin)
        b.seek(second.begin)
        left = first.end - first.begin
        while left:
            size = min(_CHUNK, left)
            if a.read(size) != b.read(size):
                return False
            left -= size
    return True


def copy_files(folder: Path) -> list[Path]:
    """Return the files a copy of the model needs: weights, configuration, tokenizer, processor, template."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.suffix not in _OTHER_WEIGHTS
    ]


def _read_header(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length + 8 > size:
            raise MergeError(f"{path} is cut off or not a safetensors file; download it again")
        header = json.loads(file.read(length))
    start = 8 + length
    tensors = {
        name: StoredTensor(
            file=path,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            begin=start + entry["data_offsets"][0],
            end=start + entry["data_offsets"][1],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }
    if any(tensor.end > size for tensor in tensors.values()):
        raise MergeError(f"{path} is cut off; download it again")
    return tensors


def _torch_dtype(name: str) -> torch.dtype:
    import torch

    known = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
    if name not in known:
        raise MergeError(f"the base stores {name} weights, which cannot take a LoRA update; use the unquantised model")
    return known[name]
