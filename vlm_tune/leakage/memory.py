"""What was computed of photos, kept on disk by content: nothing is read or embedded twice."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlm_tune._console import notice
from vlm_tune._files import atomic_file

__all__ = ["Memory"]

Columns = dict[str, NDArray[np.generic]]


class Memory:
    """A folder of small files, each with what is known of some photos.

    A file is written once, beside its place, and then renamed: a killed run loses at most the photos it was at,
    and several runs may share the folder. A file that cannot be read is ignored, and its photos computed again.

    Args:
        folder: Where the files are; None keeps nothing.
        what: What is kept, in words that change whenever the values do.
    """

    def __init__(self, folder: Path | None, what: str) -> None:
        self._folder = None if folder is None else folder / hashlib.sha256(what.encode()).hexdigest()[:16]

    def recall(self, keys: Iterable[str]) -> dict[str, Columns]:
        """Return what is known of some photos, for each key one row of every column."""
        wanted = set(keys)
        known: dict[str, Columns] = {}
        for path in sorted(self._folder.glob("*.npz")) if self._folder is not None else ():
            try:
                with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    names = [key.decode() for key in file["keys"].tolist()]
                    columns = {name: file[name] for name in file.files if name != "keys"}
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                notice(f"ignoring {path}, which cannot be read: {error}")
                continue
            for row, name in enumerate(names):
                if name in wanted and all(len(column) == len(names) for column in columns.values()):
                    known[name] = {column: values[row] for column, values in columns.items()}
        return known

    def keep(self, keys: Sequence[str], columns: Mapping[str, NDArray[np.generic]]) -> None:
        """Write what was computed of some photos; each column has a row for each key.

        Raises:
            StorageError: The disk is full or the folder cannot be written.
        """
        if self._folder is None or not keys:
            return
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:24]
        with atomic_file(self._folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, keys=np.array([key.encode() for key in keys]), **dict(columns))
