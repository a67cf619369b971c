"""A checkpoint folder as named byte ranges, so that tensors are read, copied and replaced a piece at a time."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import MergeError

if TYPE_CHECKING:
    import torch

__all__ = ["Checkpoint", "Piece", "StoredTensor", "open_checkpoint", "read_header"]

_OTHER_WEIGHTS = (".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".pt", ".pth")
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_TEMPLATES = "additional_chat_templates"
_CARD = "README.md"
"""About the base, and so not about the merged model, which gets its own."""
_SIZES = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8}
_BLOCK = 2**20
"""Numbers worked on at once: some dozen megabytes with all that is computed from them."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: what it is and where its bytes lie."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self, rows: slice | None = None) -> torch.Tensor:
        """Return the tensor, or some of its rows, from disk; a single number counts as one row.

        Raises:
            MergeError: Its type is not a plain floating-point one, or the file has become shorter.
        """
        import torch

        dtype = self._torch_dtype()
        shape = self.shape or (1,)
        rows = rows or slice(0, shape[0])
        width = math.prod(shape[1:]) * _SIZES[self.dtype]
        data = bytearray((rows.stop - rows.start) * width)
        with self.file.open("rb") as file:
            file.seek(self.begin + rows.start * width)
            if file.readinto(data) != len(data):
                raise MergeError(f"{self.file} is cut off in {self.name}; download it again")
        # An empty buffer cannot be viewed.
        flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return flat.reshape(rows.stop - rows.start, *shape[1:])

    def blocks(self) -> Iterator[slice]:
        """Yield its rows a block at a time: what `read` takes."""
        shape = self.shape or (1,)
        step = max(1, _BLOCK // max(1, math.prod(shape[1:])))
        for start in range(0, shape[0], step):
            yield slice(start, min(start + step, shape[0]))

    def within(self, folder: Path) -> StoredTensor:
        """Return the tensor at the same place of the same file in another folder."""
        return replace(self, file=folder / self.file.name)

    def _torch_dtype(self) -> torch.dtype:
        import torch

        known = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
        if self.dtype not in known:
            raise MergeError(
                f"{self.file} stores {self.name} as {self.dtype}, which cannot take an adapter's update; "
                "use the unquantised model"
            )
        return known[self.dtype]


@dataclass(frozen=True)
class Piece:
    """Bytes that a merge leaves as they are: a tensor, the header of a weight file, or a whole file of another kind."""

    name: str
    file: str
    begin: int
    end: int


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: the weight files that transformers would read, and all else that belongs to the model.

    Attributes:
        folder: Where it is.
        tensors: Every tensor, by its name on disk.
        sizes: Size in bytes of every file that is copied, by its path in the folder.
        headers: Where the tensors begin in each weight file.
        left_out: Weight files that transformers would not read, and that are not copied.
    """

    folder: Path
    tensors: Mapping[str, StoredTensor]
    sizes: Mapping[str, int]
    headers: Mapping[str, int]
    left_out: tuple[str, ...]

    @property
    def tensor_bytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(tensor.end - tensor.begin for tensor in self.tensors.values())

    def untouched(self, changed: frozenset[str]) -> list[Piece]:
        """Return all bytes but those of the tensors with these names, in pieces; large ones first."""
        pieces = [Piece(f"the header of {file}", file, 0, end) for file, end in self.headers.items()]
        pieces += [Piece(file, file, 0, size) for file, size in self.sizes.items() if file not in self.headers]
        pieces += [
            Piece(name, tensor.file.name, tensor.begin, tensor.end)
            for name, tensor in self.tensors.items()
            if name not in changed
        ]
        return sorted(pieces, key=lambda piece: piece.begin - piece.end)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a model folder.

    Raises:
        MergeError: The folder or one of its weight files is missing, cut off, or no safetensors file; or two of them
            have a tensor of the same name.
    """
    weights = _weight_files(folder)
    tensors: dict[str, StoredTensor] = {}
    headers: dict[str, int] = {}
    for path in weights:
        headers[path.name], found = read_header(path)
        if twice := sorted(tensors.keys() & found.keys()):
            raise MergeError(
                f"{tensors[twice[0]].file} and {path} both have {twice[0]}, and which one is read is left to chance; "
                "save the base model anew with save_pretrained"
            )
        tensors.update(found)
    others = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    stale = {path for path in others if path.suffix == ".safetensors" and path not in weights}
    stale |= {path for path in others if path.suffix in _OTHER_WEIGHTS}
    replaced = {_CARD, _INDEX} if _SINGLE in headers else {_CARD}
    kept = [path for path in others if path not in stale and path.name not in replaced]
    kept += sorted((folder / _TEMPLATES).glob("*.jinja"))
    return Checkpoint(
        folder=folder,
        tensors=tensors,
        sizes={path.relative_to(folder).as_posix(): path.stat().st_size for path in kept},
        headers=headers,
        left_out=tuple(path.name for path in others if path in stale),
    )


def read_header(path: Path) -> tuple[int, dict[str, StoredTensor]]:
    """Return where the tensors of a safetensors file begin, and what and where each of them is.

    The format: 8 bytes that say how long the header is, the header in JSON, the tensors without gaps.

    Raises:
        MergeError: The file is missing, cut off, or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            header = json.loads(file.read(length)) if length + 8 <= size else None
    except (OSError, ValueError) as error:
        raise MergeError(f"{path} cannot be read as a safetensors file ({error}); download it again") from error
    if not isinstance(header, dict):
        raise MergeError(f"{path} is cut off or not a safetensors file; download it again")
    start = 8 + length
    tensors = {name: _tensor(name, path, entry, start) for name, entry in header.items() if name != "__metadata__"}
    if max((tensor.end for tensor in tensors.values()), default=start) != size:
        raise MergeError(f"{path} is cut off, or longer than its header says; download it again")
    return start, tensors


def _tensor(name: str, path: Path, entry: Mapping[str, Any], start: int) -> StoredTensor:
    begin, end = entry["data_offsets"]
    tensor = StoredTensor(name, path, entry["dtype"], tuple(entry["shape"]), start + begin, start + end)
    size = _SIZES.get(tensor.dtype)
    if size is not None and end - begin != size * math.prod(tensor.shape):
        raise MergeError(f"{path} gives {name} {end - begin} bytes, which is not its shape {tensor.shape}")
    return tensor


def _weight_files(folder: Path) -> list[Path]:
    # In the order in which transformers looks for them.
    if not folder.is_dir():
        raise MergeError(
            f"the base model's folder {folder} is not there any more; "
            "if it moved, vlm_tune.Adapter.load(path, base=vlm_tune.VLM(new_folder)) takes it from where it is"
        )
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    if not (folder / _INDEX).exists():
        raise MergeError(
            f"{folder} holds neither {_SINGLE} nor {_INDEX}; save the base model with save_pretrained as safetensors"
        )
    try:
        names = sorted(set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise MergeError(f"{folder / _INDEX} is no index of weight files ({error}); download it again") from error
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise MergeError(
            f"{len(missing)} of {len(names)} weight files of {folder} are missing, first {missing[0]}; "
            "download the model again"
        )
    return [folder / name for name in names]
