"""How long it takes to index images without reading them: every reader of files beside a bare walk and a peer.

    python benchmarks/indexing.py [--files 50000] [--peer-files 5000]

Draws one small PNG and links it so many times into class folders two levels deep, then reads the folder in each way.
The peer is the `imagefolder` of Hugging Face `datasets`, which copies what it finds to a cache; it gets fewer
files, and its rate is what to compare. Each is timed in the order of the table, once; memory is what the examples
hold afterwards, as Python counts it, in a run of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import vlm_tune as vt
from vlm_tune.images import blank

CLASSES = ("crack", "dent", "lamp", "scratch", "tyre")
TASK = vt.Task(prompt="What is it?", classes=CLASSES)
FOLDERS = 10


def make(root: Path, num_files: int) -> list[str]:
    """Fill the folder and return the images' relative paths."""
    original = root / "original"
    original.write_bytes(blank(32, 32))
    names = []
    for number in range(num_files):
        name = f"{CLASSES[number % 5]}/session{number // 5 % FOLDERS}/part{number // 20:05}_{number:06}.png"
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)
        names.append(name)
    return names


def write_table(path: Path, names: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "camera"])
        writer.writerows([name, name.split("/")[0], "front"] for name in names)
    return path


def write_coco(path: Path, names: list[str]) -> Path:
    images = [{"id": number, "file_name": name, "width": 32, "height": 32} for number, name in enumerate(names)]
    marks = [
        {"id": number, "image_id": number // 2, "category_id": 1 + number // 2 % 5, "area": 20, "bbox": [0, 0, 4, 5]}
        for number in range(2 * len(names))
    ]
    categories = [{"id": 1 + number, "name": name} for number, name in enumerate(CLASSES)]
    path.write_text(json.dumps({"images": images, "annotations": marks, "categories": categories}))
    return path


def walk(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def peer(folder: Path, cache: Path) -> int:
    import datasets

    datasets.disable_progress_bars()
    return len(datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(cache))["train"])


def bytes_each(read: Callable[[], Any]) -> float:
    tracemalloc.start()
    data = read()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=50_000)
    parser.add_argument("--peer-files", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        names = make(root, options.files)
        photos = root / "photos"
        table = write_table(root / "photos.csv", names)
        coco = write_coco(root / "photos.json", names)
        small = root / "small"
        small.mkdir()
        make(small, options.peer_files)
        ways: dict[str, tuple[Callable[[], int], Callable[[], Any] | None]] = {}

        def add(way: str, read: Callable[[], Any], *, ours: bool = True) -> None:
            ways[way] = (lambda: len(read()), read) if ours else (read, None)

        add("bare os.walk", lambda: walk(photos), ours=False)
        add("from_folder", lambda: vt.Dataset.from_folder(photos, task=TASK))
        add("from_folder, group=", lambda: vt.Dataset.from_folder(photos, task=TASK, group=r"(part\d+)"))
        add("from_table (CSV)", lambda: vt.Dataset.from_table(table, task=TASK, root=photos))
        add("from_coco (2 marks a photo)", lambda: vt.Dataset.from_coco(coco, task=TASK, images=photos))
        add("datasets imagefolder", lambda: peer(small / "photos", root / "cache"), ours=False)
        shown = Table("way", title=f"Indexing on {os.cpu_count()} cores", title_justify="left")
        for column in ("files", "seconds", "files/s", "bytes/example"):
            shown.add_column(column, justify="right")
        for way, (count, read) in ways.items():
            start = time.perf_counter()
            files = count()
            seconds = time.perf_counter() - start
            memory = "" if read is None else f"{bytes_each(read):,.0f}"
            shown.add_row(way, f"{files:,}", f"{seconds:.2f}", f"{files / seconds:,.0f}", memory)
        Console(width=100).print(shown)


if __name__ == "__main__":
    main()
