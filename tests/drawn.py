"""A few of the demo's drawn photos on disk, for tests that need a folder of photos."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from vlm_tune import demo


@cache
def drawn(seed: int = 0) -> demo.DemoPhotos:
    """Draw the demo's photos once a process."""
    return demo.photos(seed)


def draw_some(folder: Path, *, num_train: int, num_test: int, num_twins: int, flat: bool = False) -> None:
    """Write clean photos and some planted copies with their originals.

    Args:
        folder: Where to write.
        num_train: Clean training photos.
        num_test: Clean test photos.
        num_twins: Test photos that are copies; their originals come on top of `num_train`.
        flat: Class folders without split folders.
    """
    every = drawn()
    copies = {twin.test_id for twin in every.twins}
    planted = every.twins[:num_twins]
    chosen = {twin.test_id for twin in planted} | {twin.train_id for twin in planted}
    for split, count in (("train", num_train), ("test", num_test)):
        clean = [photo.id for photo in every.photos if photo.split == split and photo.id not in copies | chosen]
        # The photos are listed class by class; equal steps take some of each.
        chosen |= set(clean[:: max(1, len(clean) // count)][:count]) if count else set()
    for photo in every.photos:
        if photo.id in chosen:
            path = folder / (photo.id.split("/", 1)[1] if flat else photo.id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.jpeg)
