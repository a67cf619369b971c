"""What makes a model folder this model and not another: a digest of what loading it would read."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

__all__ = ["folder_digest"]

_WHOLE_FILE = 64 * 2**20
_SAMPLE = 16 * 2**10
_SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "*processor_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)


def folder_digest(folder: Path) -> str:
    """Return a hexadecimal digest of a model folder's contents, the same on every machine.

    Configuration, tokenizer, processor and chat template are read whole, and so are safetensors files up to
    64 MiB. Of larger ones it is the size, the header and 16 KiB from the middle of every tensor, which takes
    a second where hashing all of it would take a minute, and still tells a merged model from its base.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    small = {path for pattern in _SMALL_FILES for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(small, key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    for path in sorted(folder.glob("*.safetensors"), key=lambda path: path.name):
        digest.update(path.name.encode() + b"\0" + _weights_digest(path))
    return digest.hexdigest()


def _weights_digest(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            return hashlib.file_digest(file, "sha256").digest()
        # The format: 8 bytes of header length, a JSON header with the offsets of each tensor, the tensors.
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        digest = hashlib.sha256(size.to_bytes(8, "little") + header)
        for name, entry in sorted(json.loads(header).items()):
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                middle = begin + max(0, (end - begin - _SAMPLE) // 2)
                file.seek(8 + len(header) + middle)
                digest.update(file.read(min(_SAMPLE, end - begin)))
        return digest.digest()
