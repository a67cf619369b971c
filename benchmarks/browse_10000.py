"""The page for browsing, with 10,000 drawn photos in headless Chromium: seconds, elements and memory.

    python benchmarks/browse_10000.py
    python benchmarks/browse_10000.py --photos 100000 --keep runs/browse

The photos are drawn (gradients with a few shapes, 320 x 240), a twentieth of them dark and a twentieth blurred.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from chromium import Chromium, chromium
from PIL import Image, ImageDraw, ImageFilter

import vlm_tune as vt

CLASSES = tuple(f"class {n:02}" for n in range(20))
REPEATS = 7

# Work that a person waits for ends with the frame that shows it.
TIMED = """
new Promise(done => {
  const start = performance.now();
  (() => { %s })();
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})
"""
STEPS = {
    "filter by class": "choose({ label: 3 })",
    "filter by tag": "choose({ label: -1, tag: tags.findIndex(tag => tag[0] === 'blurry') })",
    "search a word": "choose({ tag: -1, text: '0123' })",
    "show all again": "choose({ text: '' })",
    "sort by brightness": "choose({ sort: 'brightness' })",
    "sort by name": "choose({ sort: 'id' })",
    "scroll to the middle": "scrollTo(0, document.body.scrollHeight / 2)",
    "enlarge a photo": "open(1234)",
}


def draw(n: int) -> bytes:
    """Return one photo as JPEG: always the same for a number."""
    rng = np.random.default_rng(n)
    corners = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    image = Image.fromarray(corners).resize((320, 240), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = rng.integers(0, (300, 220, 90, 90)).tolist()
        pen.ellipse((x, y, x + w, y + h), fill=tuple(rng.integers(0, 256, 3).tolist()))
    image = image.point(lambda value: value // 5) if n % 20 == 0 else image
    image = image.filter(ImageFilter.GaussianBlur(4)) if n % 20 == 1 else image
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def main() -> None:
    """Draw, profile, write the page, drive the browser, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="Folder to keep the page and a screenshot in.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        rows = measure(folder, Path(scratch), arguments.photos)
    print("\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]))


def measure(folder: Path, scratch: Path, count: int) -> list[tuple[str, str]]:
    """Return what was measured, by name."""
    data = photos(scratch / "photos", count)
    rows = [("photos", f"{count:,}")]
    start = time.perf_counter()
    profile = vt.profile(data, duplicates=False)
    rows.append(("profile without copies", f"{time.perf_counter() - start:.1f} s"))
    start = time.perf_counter()
    page = profile.browse(data, folder / "photos.html")
    rows.append(("write page and thumbnails", f"{time.perf_counter() - start:.1f} s"))
    small = sum(file.stat().st_size for file in page.with_name("photos_files").rglob("*.jpg"))
    rows.append(("size of the page; of the thumbnails", f"{page.stat().st_size / 1e6:.1f} MB; {small / 1e6:.0f} MB"))
    with chromium(scratch / "browser") as browser:
        rows += visit(browser, page)
        browser.screenshot(folder / "photos.png")
    return rows


def photos(folder: Path, count: int) -> vt.Dataset:
    """Write the photos to class folders and return them as a dataset."""
    examples = []
    for n in range(count):
        path = folder / CLASSES[n % len(CLASSES)] / f"{n:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw(n))
        examples.append(vt.Example(id=f"{path.parent.name}/{path.name}", image=path, label=path.parent.name))
    task = vt.Task(prompt="Which class is it?", classes=CLASSES)
    return vt.Dataset(examples, task=task).split(test=0.25, seed=0)


def visit(browser: Chromium, page: Path) -> list[tuple[str, str]]:
    """Open the page several times, then use it; each time is a median."""
    first = []
    for _ in range(REPEATS):
        browser.open(Path(page))
        browser.settle()
        # From the start of the navigation until the cards in sight and their photos are drawn.
        first.append(browser.run("performance.now()"))
        browser.leave()
    browser.open(page)
    browser.settle()
    rows = [("first grid, photos drawn", f"{statistics.median(first):.0f} ms")]
    cards, elements = browser.run("[grid.children.length, document.querySelectorAll('*').length]")
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(REPEATS):
        for name, script in STEPS.items():
            times[name].append(browser.run(TIMED % script))
        browser.run("viewer.close(); choose({ sort: '' })")
        browser.settle()
    rows += [(name, f"{statistics.median(each):.0f} ms") for name, each in times.items()]
    rows.append(("cards; elements in the document", f"{cards}; {elements}"))
    browser.call("HeapProfiler.collectGarbage")
    heap = browser.run("performance.memory.usedJSHeapSize")
    rows.append(("memory of the script", f"{heap / 1e6:.0f} MB"))
    return rows


if __name__ == "__main__":
    main()
