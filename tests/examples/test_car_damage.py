"""The car-damage experiment on a set drawn in the shape of CarDD: six categories, a file a split, planted copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.drawn import draw_some
from tests.processes import Ran, run
from vlm_tune.testing import FakeGeminiServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "car_damage.py"
CATEGORIES = ("dent", "scratch", "crack", "glass shatter", "lamp broken", "tire flat")
KEY = "a-secret-key"


@pytest.fixture
def cardd(tmp_path: Path) -> Path:
    """Photos in `train2017` and `test2017`, and what is marked on them; one shows a flat tyre beside its dent."""
    draw_some(tmp_path / "photos", num_train=24, num_test=9, num_twins=2, side=64)
    ids = {name: number for number, name in enumerate(CATEGORIES, start=1)}
    (tmp_path / "annotations").mkdir()
    for split in ("train", "test"):
        folder = tmp_path / f"{split}2017"
        folder.mkdir()
        images, marks = [], []
        for number, path in enumerate(sorted((tmp_path / "photos" / split).rglob("*.jpg"))):
            path.rename(folder / f"{number:06}.jpg")
            images.append({"id": number, "file_name": f"{number:06}.jpg", "width": 64, "height": 64})
            seen = [path.parent.name, "tire flat"] if number == 0 else [path.parent.name] * 2
            marks += [
                {"image_id": number, "category_id": ids[name], "area": 50, "bbox": [0, 0, 5, 10]} for name in seen
            ]
        categories = [{"id": number, "name": name} for name, number in ids.items()]
        numbered = [{"id": number, **mark} for number, mark in enumerate(marks)]
        content = {"images": images, "annotations": numbered, "categories": categories}
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


def experiment(folder: Path, *arguments: object, key: str = "") -> Ran:
    return run(EXAMPLE, *map(str, arguments), cwd=folder, env={"GEMINI_API_KEY": key})


def test_from_coco_to_the_report(cardd: Path, small_demo_model: Path) -> None:
    files = [f"{split}=annotations/instances_{split}2017.json" for split in ("train", "test")]
    with FakeGeminiServer("dent", api_key=KEY) as server:
        given = ["--model", small_demo_model, "--gemini-key", KEY, "--base-url", server.url, "--epochs", 1]
        given += ["--learning-rate", 3e-3]
        done = experiment(cardd, *files, *given)
        num_asked = len(server.requests)
    assert done.status == 0, done.err
    report = json.loads((cardd / "runs/car_damage/report.json").read_text())
    names = [row["name"] for row in report["evaluations"]]
    assert names[1:3] == [small_demo_model.name, "gemini-3-flash-preview"] and len(names) == 4
    # The planted copies went to the training photos, where their originals are.
    assert {row["num_examples"] for row in report["evaluations"]} == {num_asked}
    assert len(report["comparisons"]) == 2
    for name in ("report.html", "merged/config.json", "tuned_against_base.csv", "tuned_against_gemini.csv"):
        assert (cardd / "runs/car_damage" / name).exists()
    assert KEY not in done.out + done.err


def test_files_without_their_splits_are_refused(tmp_path: Path) -> None:
    done = experiment(tmp_path, "train.json", "test.json")
    assert done.status == 2
    assert "several files need a split each" in done.err
