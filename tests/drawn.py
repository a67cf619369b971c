"""A few of the demo's drawn photos on disk, and its model, for tests that need a folder of photos and answers."""

from __future__ import annotations

import io
import json
import shutil
from functools import cache
from pathlib import Path

from PIL import Image

from vlm_tune import demo


@cache
def drawn(seed: int = 0) -> demo.DemoPhotos:
    """Draw the demo's photos once a process."""
    return demo.photos(seed)


def small_demo_model(folder: Path) -> Path:
    """Copy the embedded model, and let it read small photos as they are: it enlarges them otherwise.

    A photo of 64 pixels takes 16 tokens then, in place of 64.
    """
    shutil.copytree(demo.model_path(), folder)
    settings = folder / "processor_config.json"
    processor = json.loads(settings.read_text(encoding="utf-8"))
    processor["image_processor"]["size"]["shortest_edge"] = 64 * 64
    settings.write_text(json.dumps(processor), encoding="utf-8")
    return folder


def draw_some(
    folder: Path, *, num_train: int, num_test: int, num_twins: int, flat: bool = False, side: int | None = None
) -> None:
    """Write clean photos and some planted copies with their originals.

    Args:
        folder: Where to write.
        num_train: Clean training photos.
        num_test: Clean test photos.
        num_twins: Test photos that are copies; their originals come on top of `num_train`.
        flat: Class folders without split folders.
        side: Longest side in pixels; None leaves the photos as they were drawn.
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
            path.write_bytes(photo.jpeg if side is None else _shrunk(photo.jpeg, side))


def _shrunk(jpeg: bytes, side: int) -> bytes:
    with Image.open(io.BytesIO(jpeg)) as image:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=92)
    return stream.getvalue()
