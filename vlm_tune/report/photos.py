"""Thumbnails of a report: a few inside the page, and a folder of them beside it where there are many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from vlm_tune import images
from vlm_tune._console import progress
from vlm_tune._files import atomic_directory
from vlm_tune.errors import ImageError
from vlm_tune.report.blocks import Photo

__all__ = ["Photos"]

_MOST_WORKERS = 8
_IN_A_FOLDER = 1000


class Photos:
    """The thumbnails of one page.

    Args:
        limit: Largest number of thumbnails inside the page; photos asked for after that are left out.
        size: Longer side of a thumbnail, in pixels.
        folder: Where thumbnails go when there are more; None leaves those out as well.
    """

    def __init__(self, *, limit: int = 200, size: int = 200, folder: Path | None = None) -> None:
        self.limit = limit
        self.size = size
        self.folder = folder
        self.address = ""
        """The folder's name in the page; empty while every thumbnail is inside."""
        self._stored: dict[str, tuple[Photo, str]] = {}
        self._absent: set[str] = set()

    def __iter__(self) -> Iterator[tuple[Photo, str]]:
        """Yield every thumbnail inside the page with its data URI."""
        return iter(self._stored.values())

    @property
    def full(self) -> bool:
        """Whether no further thumbnail will be made inside the page."""
        return len(self._stored) >= self.limit

    def get(self, example_id: str, source: Path | bytes | None) -> Photo | None:
        """Return an example's thumbnail; None where there is no readable image, or no room left.

        A report is worth having without a photo that has moved since, so that is no error.
        """
        if example_id in self._stored:
            return self._stored[example_id][0]
        if source is None or example_id in self._absent or self.full:
            return None
        try:
            small = images.thumbnail(source, size=self.size)
            info = images.probe(small)
        except ImageError:
            self._absent.add(example_id)
            return None
        photo = Photo(anchor=f"photo-{len(self._stored)}", width=info.width, height=info.height)
        self._stored[example_id] = (photo, images.data_uri(small, "image/jpeg"))
        return photo

    def all(self, sources: Mapping[str, Path]) -> dict[str, Photo | str]:
        """Return a thumbnail for each readable image: inside the page if all have room there, else a file's name.

        Raises:
            StorageError: The folder cannot be written.
        """
        new = [example_id for example_id in sources if example_id not in self._stored]
        if self.limit and self.folder is not None and len(self._stored) + len(new) > self.limit:
            self.address = quote(self.folder.name)
            return dict(self._write(sources, self.folder))
        found = {example_id: self.get(example_id, source) for example_id, source in sources.items()}
        return {example_id: photo for example_id, photo in found.items() if photo is not None}

    def _write(self, sources: Mapping[str, Path], folder: Path) -> list[tuple[str, str]]:
        """Write a file for each image that can be read; return their names by example id."""
        names = [f"{place // _IN_A_FOLDER:03}/{place:06}.jpg" for place in range(len(sources))]
        workers = min(_MOST_WORKERS, os.cpu_count() or 1)
        with atomic_directory(folder) as temporary, ThreadPoolExecutor(workers) as pool:

            def write(source: Path, name: str) -> bool:
                try:
                    small = images.thumbnail(source, size=self.size)
                except ImageError:
                    return False
                (temporary / name).parent.mkdir(exist_ok=True)
                (temporary / name).write_bytes(small)
                return True

            written = []
            with progress("Writing thumbnails", total=len(names)) as bar:
                for done in pool.map(write, sources.values(), names):
                    written.append(done)
                    bar.advance()
        return [pair for pair, done in zip(zip(sources, names, strict=True), written, strict=True) if done]
