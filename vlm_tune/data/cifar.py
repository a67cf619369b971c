"""Reading CIFAR-10 and CIFAR-100 from the Python batches in which they are published."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlm_tune._console import progress
from vlm_tune.data.splitting import SplitName
from vlm_tune.data.unpickling import read_pickle
from vlm_tune.errors import DataError
from vlm_tune.records import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Batches", "read_cifar"]

_SIDE = 32
_FILES = re.compile(r"data_batch_\d+|test_batch|train|test")
_NAMES = ("meta", "batches.meta")


@dataclass
class Batches:
    """What was read.

    Attributes:
        examples: The examples, by file and row.
        splits: The split of each id.
        classes: Names of the classes.
    """

    examples: list[Example] = field(default_factory=list)
    splits: dict[str, SplitName] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


def read_cifar(path: Path | str, *, label: Literal["fine", "coarse"]) -> Batches:
    """Read one batch or a folder of them; `Dataset.from_cifar` says how.

    Raises:
        DataError: There is no batch, the file of names is missing, or a file is not what CIFAR's are.
    """
    files = _files(Path(path))
    names = _names(files[0].parent)
    key = "labels" if "labels" in names and label == "fine" else f"{label}_labels"
    if key not in names:
        raise DataError(f"{path} has no {label} labels; CIFAR-10 has one kind only")
    batches = Batches(classes=names[key])
    with progress("Reading CIFAR", total=None) as bar:
        for file in files:
            split: SplitName = "test" if file.name.startswith("test") else "train"
            part = _examples(file, names, key)
            batches.examples += part
            batches.splits.update({example.id: split for example in part if len(files) > 1})
            bar.advance(len(part))
    return batches


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    files = [file for file in path.glob("*") if _FILES.fullmatch(file.name)]
    if not files:
        raise DataError(
            f"{path} holds no CIFAR batch; looked for train and test, or data_batch_1 and test_batch. "
            "Unpack the archive, and name the folder in it"
        )
    return sorted(files, key=lambda file: (file.name.startswith("test"), file.name))


def _names(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the class names by the key of the labels that they name."""
    for name in _NAMES:
        if (folder / name).is_file():
            content = read_pickle(folder / name)
            named = {key.removesuffix("_names") + "s": value for key, value in content.items() if key.endswith("names")}
            return {key: tuple(map(_text, value)) for key, value in named.items() if isinstance(value, list)}
    raise DataError(f"{folder} lacks the file of class names ({' or '.join(_NAMES)}); copy it from the archive")


def _examples(file: Path, names: Mapping[str, tuple[str, ...]], key: str) -> list[Example]:
    batch = read_pickle(file)
    pixels = _pixels(batch.get("data"), file)
    labels = {kind: _labels(batch[kind], names[kind], len(pixels), file) for kind in names if kind in batch}
    if key not in labels:
        raise DataError(f"{file} has no {key} (it has {', '.join(batch)})")
    file_names = batch.get("filenames")
    if not isinstance(file_names, list) or len(file_names) != len(pixels):
        file_names = None
    return [
        Example(
            id=f"{file.name}/{row}",
            image=png,
            label=labels[key][row],
            metadata={
                **{kind.removesuffix("s"): of[row] for kind, of in labels.items() if kind != key},
                **({"filename": _text(file_names[row])} if file_names else {}),
            },
        )
        for row, png in enumerate(_pngs(pixels))
    ]


def _pixels(data: Any, file: Path) -> NDArray[np.uint8]:
    """Return the images, shape (N, 32, 32, 3)."""
    import numpy as np

    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (3 * _SIDE * _SIDE,):
        raise DataError(f"{file} is no CIFAR batch: its data should be rows of {3 * _SIDE * _SIDE} bytes")
    pixels: NDArray[np.uint8] = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels)


def _labels(values: Any, names: Sequence[str], count: int, file: Path) -> list[str]:
    if not isinstance(values, list) or len(values) != count:
        raise DataError(f"{file} should have one label for each of its {count} images")
    if not all(isinstance(value, int) and 0 <= value < len(names) for value in values):
        raise DataError(f"{file} has a label that is none of the {len(names)} classes")
    return [names[value] for value in values]


def _pngs(pixels: NDArray[np.uint8]) -> Iterator[bytes]:
    """Yield each image, of shape (32, 32, 3), as a PNG.

    Written by hand, since that takes a third of Pillow's time for images this small: a header, the rows as
    differences from the pixel to the left (filter 1), and an end, each with its checksum.
    """
    import numpy as np

    rows = pixels.reshape(len(pixels), _SIDE, 3 * _SIDE)
    lines = np.empty((len(pixels), _SIDE, 1 + 3 * _SIDE), np.uint8)
    lines[:, :, 0] = 1
    lines[:, :, 1:4] = rows[:, :, :3]
    np.subtract(rows[:, :, 3:], rows[:, :, :-3], out=lines[:, :, 4:])
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0))
    tail = _chunk(b"IEND", b"")
    for image in lines:
        yield head + _chunk(b"IDAT", zlib.compress(image.tobytes(), 1)) + tail


def _chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
