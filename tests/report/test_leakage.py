"""The section about leaks: conflicts first, the overlap outlined, bounded, and working in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.leakage.planting import COPIES, cropped, jpeg_bytes, scene
from tests.report.test_browser import browser, run
from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.evaluation import Evaluator, leakage_inflation
from vlm_tune.leakage import LeakageChecker, LeakageReport
from vlm_tune.records import Example
from vlm_tune.report import Report
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

__all__ = ["browser"]

TASK = Task(prompt="Which one?", classes=("a", "b"))
Checked = tuple[Dataset, LeakageReport]


@pytest.fixture(scope="module")
def checked() -> Checked:
    """Four leaks: a crop, a mirror image, an equal photo with another label, and a group key."""
    photos: dict[str, tuple[bytes, str, SplitName]] = {
        f"train{i}": (jpeg_bytes(scene(i)), "ab"[i % 2], "train") for i in range(10)
    }
    photos |= {f"test{i}": (jpeg_bytes(scene(100 + i)), "ab"[i % 2], "test") for i in range(12)}
    photos["crop"] = (jpeg_bytes(cropped(0.25)(scene(2))), "a", "test")
    photos["mirror"] = (jpeg_bytes(COPIES["mirrored"](scene(4))), "a", "test")
    photos["conflict"] = (photos["train6"][0], "b", "test")
    groups = {"train8": "part 8", "test8": "part 8"}
    examples = [Example(id=n, image=data, label=label, group=groups.get(n)) for n, (data, label, _) in photos.items()]
    data = Dataset(examples, task=TASK, splits={name: split for name, (_, _, split) in photos.items()})
    return data, LeakageChecker(PixelEmbedder()).check(data)


def save(checked: Checked, tmp_path: Path, *, resolved: bool = False, **options: Any) -> Path:
    data, report = checked
    test = report.resolve(data).test if resolved else data.test
    knows = ScriptedPredictor(lambda one: one.label, name="tuned")
    guesses = ScriptedPredictor(lambda one: "a", name="outside")
    tuned, outside = (Evaluator(test).run(system) for system in (knows, guesses))
    return Report([outside, tuned], sections=[report], **options).save(tmp_path / "report.html")


def test_conflicts_come_first_and_overlaps_are_outlined(
    checked: Checked, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    page = read(save(checked, tmp_path))
    tags = [found["data-tag"] for found in page.all("li") if "data-tag" in found]
    assert tags[0] == "identical conflict"
    assert tags[1:4] == ["near_copy", "near_copy", "same_scene"]
    assert set(tags[4:]) <= {"similar_only"}
    outlines = [found["points"] for found in page.with_class("overlap")]
    assert len(outlines) == 4
    assert len(page.with_class("over")) == 2
    assert "both of group 'part 8': 1 in test, 1 in train" in page.words
    assert "What can be done: resolve(data, strategy)" in page.words


def test_the_damage_is_shown_while_leaked_photos_are_in_the_test(
    checked: Checked, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    page = read(save(checked, tmp_path))
    assert "Leaked against clean test photos" in page.words
    assert "Not enough photos to tell: 4 on one side." in page.words
    clean = read(save(checked, tmp_path, resolved=True))
    assert "Leaked against clean test photos" not in clean.words


def test_what_leakage_is_worth_has_its_own_section(
    checked: Checked, tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    data, report = checked
    tuned = Evaluator(data.test).run(ScriptedPredictor(lambda one: one.label, name="tuned"))
    found = leakage_inflation(tuned, report.leaked_test_ids)
    page = read(Report([tuned], sections=[report, found]).save(tmp_path / "report.html"))
    assert "Not enough leaked photos to tell: 4, and at least 10 are needed." in page.words
    assert json.loads((tmp_path / "report.json").read_text())["inflation"]["tuned"]["leaked"]["n"] == 4


def test_thousands_of_pairs_stay_readable(checked: Checked, tmp_path: Path, read: Callable[[Path], Any]) -> None:
    data, report = checked
    many = tuple(pair for pair in report.pairs if pair.tier == "near_copy") * 2000
    path = save((data, LeakageReport.model_validate({**report.model_dump(), "pairs": many})), tmp_path)
    page = read(path)
    assert len(page.with_class("overlap")) == 120
    assert "3 940 more pairs are left out of this page" in page.words.replace("\u202f", " ").replace("\u2009", " ")
    assert path.stat().st_size < 1_500_000


def test_a_fixed_threshold_is_named_as_such(tmp_path: Path, checked: Checked, read: Callable[[Path], Any]) -> None:
    data, _ = checked
    report = LeakageChecker(PixelEmbedder(), threshold=0.2).check(data)
    page = read(save((data, report), tmp_path))
    assert "called a leak by the threshold alone" in page.words
    assert "have a photo above the threshold in another split" in page.words
    assert f"Caution: {report.warning}." in page.words


@pytest.mark.browser
def test_buttons_choose_a_tier_and_lay_photos_on_each_other(browser: str, checked: Checked, tmp_path: Path) -> None:
    path = save(checked, tmp_path)
    done = run(browser, path, "--dump-dom")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    text = path.read_text(encoding="utf-8")
    probe = (
        "{ const left = () => document.querySelectorAll('.pairs li:not([hidden])').length;"
        "const click = (name) => document.querySelector(name).click();"
        "const seen = [left()];"
        "for (const tag of ['near_copy', 'conflict', 'same_scene']) { click(`[data-show=${tag}]`); seen.push(left()); }"
        "click('.lay');"
        "const laid = document.querySelector('.blinking .laid');"
        "seen.push(getComputedStyle(laid).display, document.querySelectorAll('.blinking').length);"
        "document.title = seen.join(' '); }"
    )
    start, end = text.index("<meta http-equiv"), text.index(">", text.index("<meta http-equiv"))
    copy = tmp_path / "copy.html"
    copy.write_text((text[:start] + text[end + 1 :]).replace("</body>", f"<script>{probe}</script></body>"), "utf-8")
    assert "<title>5 2 1 1 block 1</title>" in run(browser, copy, "--dump-dom").stdout
