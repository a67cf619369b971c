"""Finding the image that a table or annotation file names, and nothing outside its folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vlm_tune.errors import DataError
from vlm_tune.records import Example

__all__ = ["Locator", "require_files"]


class Locator:
    """Finds images that are named relative to a folder.

    Paths are normalised as text, so that an image keeps the id it has in its source whatever links lie on its
    way; links only must not lead out.

    Args:
        folder: The folder.
        option: The argument that names the folder, for errors' advice.
    """

    def __init__(self, folder: Path | str, *, option: str) -> None:
        self.folder = Path(folder).resolve()
        self._option = option
        self._root = os.path.join(self.folder, "")  # noqa: PTH118 - ends with a separator
        # Looking up links takes most of the time, and most images share a few folders.
        self._real: dict[str, str] = {}

    def find(self, name: str, *, where: str) -> tuple[str, Path]:
        """Return an image's path below the folder, with forward slashes, and its whole path.

        Args:
            name: What the source says.
            where: What errors call the place in the source.

        Raises:
            DataError: The name is absolute, climbs out of the folder, or leads out of it by a link.
        """
        if "\0" in name:
            raise DataError(f"{where}: {name!r:.80} is not a file name")
        path = os.path.normpath(self._root + name if not os.path.isabs(name) else name)  # noqa: PTH117 - faster
        if not path.startswith(self._root) or not self._resolved(path).startswith(self._root):
            raise DataError(
                f"{where}: image {name!r} leaves {self.folder}; pass the folder that holds all with {self._option}=..."
            )
        return path[len(self._root) :].replace(os.sep, "/"), Path(path)

    def _resolved(self, path: str) -> str:
        if os.path.islink(path):  # noqa: PTH114 - faster
            return os.path.realpath(path)
        parent, name = os.path.split(path)
        if parent not in self._real:
            self._real[parent] = os.path.realpath(parent)
        return os.path.join(self._real[parent], name)  # noqa: PTH118 - faster


def require_files(examples: Sequence[Example], *, source: Path, folder: Path, option: str) -> None:
    """Raise a `DataError` that counts the images that are missing and names the first."""
    missing = [example.id for example in examples if not os.path.isfile(str(example.image))]  # noqa: PTH113 - faster
    if missing:
        first = ", ".join(missing[:5]) + (", ..." if missing[5:] else "")
        raise DataError(
            f"{len(missing)} of {len(examples)} images in {source} are missing below {folder}: {first}; "
            f"say which folder they are in with {option}=..."
        )
