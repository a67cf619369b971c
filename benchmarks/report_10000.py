"""A report about 10,000 drawn photos and three systems in headless Chromium: until it is open, and each filter.

python benchmarks/report_10000.py
python benchmarks/report_10000.py --photos 500 --keep runs/report
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
import time
from pathlib import Path

from browse_10000 import REPEATS, TIMED, draw
from chromium import Chromium, chromium

import vlm_tune as vt

CLASSES = tuple(f"class {n:02}" for n in range(12))

# What a person does, as the page's own controls do it; each picks another control and leaves the others.
PICK = "const it = document.querySelector('[data-ui=%s]'); it.value = '%s'; it.dispatchEvent(new Event('%s'));"
STEPS = {
    "filter by class": PICK % ("truth", "3", "change"),
    "filter by who is wrong": PICK % ("who", "2:0", "change"),
    "show all again": "document.querySelector('[data-ui=reset]').click()",
    "filter by tag": "document.querySelector('[data-ui=tags] button').click()",
    "search a word": PICK % ("text", "0123", "input"),
    "a cell of the confusion matrix": "document.querySelector('a[data-system]').click()",
    "show all, again": "document.querySelector('[data-ui=reset]').click()",
    "sort by confidence": PICK % ("sort", "2", "change"),
    "sort by name": PICK % ("sort", "id", "change"),
    "scroll to the middle": "const view = document.querySelector('.window'); view.scrollTop = view.scrollHeight / 2",
    "enlarge a photo": "document.querySelector('.example').click()",
}


def main() -> None:
    """Draw, answer, write the report, drive the browser, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="Folder to keep the report and a screenshot in.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(arguments.keep or Path(scratch), Path(scratch), arguments.photos)
    print("\n".join(["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]))


def measure(folder: Path, scratch: Path, count: int) -> list[tuple[str, str]]:
    """Return what was measured, by name."""
    data = photos(scratch / "photos", count)
    base, rival, tuned = (answered(data, *system) for system in (("base", 0.5), ("rival", 0.8), ("tuned", 0.9)))
    report = vt.Report([base, rival, tuned], sections=[vt.Comparison(candidate=tuned, reference=rival)])
    start = time.perf_counter()
    page = report.save(folder / "report.html")
    rows = [("examples, systems", f"{len(data):,}, 3"), ("write", f"{time.perf_counter() - start:.1f} s")]
    small = sum(file.stat().st_size for file in folder.glob("report_files/*/*.jpg"))
    rows.append(("size of the page; of the thumbnails", f"{page.stat().st_size / 1e6:.1f} MB; {small / 1e6:.0f} MB"))
    with chromium(scratch / "browser") as browser:
        rows += visit(browser, page)
        browser.run("document.querySelector('dialog').close(); document.getElementById('examples').scrollIntoView()")
        browser.settle()
        browser.screenshot(folder / "report.png")
        complaints = browser.complaints()
    return [*rows, ("complaints of the console", str(complaints or "none"))]


def photos(folder: Path, count: int) -> vt.Dataset:
    """Write the photos and return them as a dataset."""
    folder.mkdir(parents=True)
    examples = []
    for n in range(count):
        path = folder / f"{n:06}.jpg"
        path.write_bytes(draw(n))
        examples.append(vt.Example(id=path.name, image=path, label=CLASSES[n % len(CLASSES)]))
    return vt.Dataset(examples, task=vt.Task(prompt="Which class is it?", classes=CLASSES))


def answered(data: vt.Dataset, name: str, skill: float) -> vt.Evaluation:
    """Return a system that is right with a given probability, and says how sure it is."""
    rng = random.Random(name)

    def say(example: vt.Example) -> vt.Prediction:
        label = example.label if rng.random() < skill else rng.choice(CLASSES)
        sure = rng.uniform(0.4, 1.0)
        rest = math.log((1 - sure) / (len(CLASSES) - 1) + 1e-12)
        scores = {other: math.log(sure) if other == label else rest for other in CLASSES}
        return vt.Prediction(example_id=example.id, outcome="answered", label=label, scores=scores)

    return vt.Evaluator(data).run(vt.testing.ScriptedPredictor(say, name=name))


def visit(browser: Chromium, page: Path) -> list[tuple[str, str]]:
    """Open the page several times, then use it; each time is a median."""
    first = []
    for _ in range(REPEATS):
        browser.open(page, "#examples")
        browser.settle()
        # From the start of the navigation until the cards in sight and their photos are drawn.
        first.append(browser.run("performance.now()"))
        browser.leave()
    browser.open(page, "#examples")
    browser.settle()
    times: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(REPEATS):
        for name, script in STEPS.items():
            times[name].append(browser.run(TIMED % script))
        browser.run("document.querySelector('dialog').close()")
        browser.settle()
    rows = [("open, photos drawn", f"{statistics.median(first):.0f} ms, at most {max(first):.0f}")]
    rows += [(name, f"{statistics.median(each):.0f} ms, at most {max(each):.0f}") for name, each in times.items()]
    cards, elements = browser.run(
        "[document.querySelectorAll('.example').length, document.querySelectorAll('*').length]"
    )
    return [*rows, ("cards; elements in the document", f"{cards}; {elements}")]


if __name__ == "__main__":
    main()
