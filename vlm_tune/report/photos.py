"""Thumbnails of a report: each is made once, and there is a largest number of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlm_tune import images
from vlm_tune.errors import ImageError
from vlm_tune.report.blocks import Photo

__all__ = ["Photos"]


class Photos:
    """The thumbnails of one page.

    Args:
        limit: Largest number of thumbnails; photos asked for after that are left out.
        size: Longer side of a thumbnail, in pixels.
    """

    def __init__(self, *, limit: int = 200, size: int = 200) -> None:
        self.limit = limit
        self.size = size
        self._stored: dict[str, tuple[Photo, str]] = {}
        self._absent: set[str] = set()

    def __iter__(self) -> Iterator[tuple[Photo, str]]:
        """Yield every thumbnail with its data URI."""
        return iter(self._stored.values())

    @property
    def full(self) -> bool:
        """Whether no further thumbnail will be made."""
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
