"""A real browser shows the report: its script runs under its own policy, and it follows light and dark."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.report import Report

pytestmark = pytest.mark.browser

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on the path (looked for {', '.join(_NAMES)})")
    return found


@pytest.fixture
def page(seen: tuple[Evaluation, Evaluation], trained: list[object], tmp_path: Path) -> Path:
    seer, oracle = seen
    sections = [Comparison(candidate=oracle, reference=seer), *trained]
    return Report([seer, oracle], sections=sections).save(tmp_path / "report.html")


def run(browser: str, page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
    profile = f"--user-data-dir={page.parent / 'browser'}"
    command += [profile, "--virtual-time-budget=2000", "--enable-logging=stderr", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def picture(browser: str, page: Path, name: str, *options: str) -> np.ndarray:
    target = page.parent / f"{name}.png"
    run(browser, page, f"--screenshot={target}", *options)
    with Image.open(target) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def test_the_page_shows_in_light_and_dark_and_on_a_phone(browser: str, page: Path) -> None:
    light = picture(browser, page, "light", "--window-size=1280,2000")
    dark = picture(browser, page, "dark", "--window-size=1280,2000", _DARK)
    assert light[0, 0].min() > 240
    assert dark[0, 0].max() < 60
    assert light.std() > 10
    assert dark.std() > 10
    phone = picture(browser, page, "phone", "--window-size=500,2000")
    # Nothing sticks out: the right edge is paper from top to bottom.
    assert phone[:, -4:].min() > 240


def test_the_script_runs_and_nothing_is_refused(browser: str, page: Path) -> None:
    done = run(browser, page, "--dump-dom")
    assert '<html lang="en" class="js">' in done.stdout
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []


def test_the_policy_stops_what_is_not_ours(browser: str, page: Path) -> None:
    foreign = "<script>document.documentElement.id = 'owned'</script><p style='color:red'>x</p>"
    page.write_text(page.read_text(encoding="utf-8").replace("</main>", foreign + "</main>"), encoding="utf-8")
    done = run(browser, page, "--dump-dom")
    assert 'id="owned"' not in done.stdout
    assert len([line for line in done.stderr.splitlines() if "Content Security Policy" in line]) >= 2


def test_a_report_of_several_classes_shows_whole_and_has_nothing_to_complain_about(
    browser: str, tmp_path: Path
) -> None:
    truth = {f"{n}.jpg": ["none", "crack", "dent", "crack, dent"][n % 4] for n in range(24)}
    sides = [
        Evaluation.from_answers(name, truth=truth, answers=said, classes=("crack", "dent"), multi_label=True)
        for name, said in (("base", dict.fromkeys(truth, "crack")), ("tuned", {**truth, "0.jpg": "rust"}))
    ]
    page = Report(sides, sections=[Comparison(candidate=sides[1], reference=sides[0])]).save(tmp_path / "report.html")
    done = run(browser, page, "--dump-dom")
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert "Exact match" in done.stdout
    assert 'class="confusion"' not in done.stdout
    phone = picture(browser, page, "phone", "--window-size=500,2000")
    assert phone[:, -4:].min() > 240
