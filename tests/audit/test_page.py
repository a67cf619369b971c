"""The review sheet in a real browser: it rules, saves what can be read back, and runs nothing that is not its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chromium import Chromium, chromium, find
from vlm_tune.audit import LabelAudit
from vlm_tune.evaluation import Evaluation
from vlm_tune.images import blank

HOSTILE = "<img src=x onerror=document.title='owned'>"
BREAKOUT = "</script><script>document.title='owned'</script>"
CLASSES = ("crack", HOSTILE, BREAKOUT)
needs_browser = pytest.mark.skipif(find() is None, reason="no Chromium on the path")


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> LabelAudit:
    """An audit whose classes, ids and systems would run a script if they could."""
    folder = tmp_path_factory.mktemp("photos")
    truth = {f"{at}.jpg": CLASSES[at % 3] for at in range(12)} | {f"{BREAKOUT}.jpg": "crack", "=1+1.jpg": "crack"}
    said = truth | {"0.jpg": HOSTILE, "missing.jpg": "crack"}
    truth["missing.jpg"] = "crack"
    systems = [
        Evaluation.from_answers(name, truth=truth, answers=said, classes=CLASSES)
        for name in ("base", f"tuned {HOSTILE}")
    ]
    audit = LabelAudit(systems)
    for at, name in enumerate(sorted(truth)):
        path = folder / f"{at}.png"
        path.write_bytes(blank(40, 30))
        if name != "missing.jpg":
            audit._images[name] = path  # type: ignore[index]
    return audit


@pytest.fixture
def page(audit: LabelAudit, tmp_path: Path) -> Path:
    return audit.review(tmp_path / "review.html", suspects=4, controls=8)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(started: Chromium) -> Iterator[Chromium]:
    started.events.clear()
    yield started
    # Or the page would ask whether its rulings may be lost.
    started.run("saved = true")


def test_the_file_says_nothing_about_who_is_a_control(audit: LabelAudit, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert BREAKOUT not in text
    content = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert [set(photo) for photo in content["photos"]] == [{"id", "label", "photo", "said", "near", "copies"}] * 12
    assert [photo["id"] for photo in content["photos"]] == list(audit.sheet(suspects=4, controls=8).order)
    assert {"src=http", "href=http", "@import"}.isdisjoint(text.split())
    header, *rows = page.with_suffix(".csv").read_text().splitlines()
    assert header == "example_id,label,ruling,new_label,note,sheet"
    assert len(rows) == 12


@pytest.mark.browser
@needs_browser
def test_hostile_names_are_words_and_nothing_else(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.settle()
    assert browser.run("document.title").startswith("Are these labels right?")
    assert browser.run("document.querySelectorAll('.card').length") == 12
    assert browser.run("document.querySelectorAll('.card img').length") in (11, 12)
    assert browser.run("[...document.querySelectorAll('.label')].some(one => one.textContent.includes('<img src=x'))")
    assert browser.complaints() == []
    assert [url for url in browser.requests() if not url.startswith(("file:", "data:"))] == []


@pytest.mark.browser
@needs_browser
def test_what_is_ruled_in_the_page_is_read_back(browser: Chromium, page: Path, audit: LabelAudit) -> None:
    browser.open(page)
    rule = """
        (() => {
            const cards = [...document.querySelectorAll('.card')];
            const press = (at, ruling) => cards[at].querySelector(`[data-ruling=${ruling}]`).click();
            press(0, 'keep'); press(1, 'unsure'); press(2, 'relabel'); press(3, 'relabel');
            press(4, 'keep'); press(4, 'keep');
            const select = cards[2].querySelector('select');
            select.value = select.options[1].value;
            select.dispatchEvent(new Event('change', {bubbles: true}));
            cards[0].querySelector('.note').value = 'a, "quoted" note';
            return document.getElementById('status').textContent;
        })()"""
    # A relabelling without a class does not count, and a ruling pressed twice is none.
    assert browser.run(rule) == "3 of 12 ruled"
    for name, script in (("rulings.csv", "asCsv()"), ("rulings.json", "asJson()")):
        target = page.with_name(name)
        target.write_text(browser.run(script), encoding="utf-8")
        rulings = audit.rulings(target)
        order = rulings.sheet.order
        assert [one.ruling for one in rulings.rulings] == ["keep", "unsure", "relabel"]
        assert [one.example_id for one in rulings.rulings] == list(order[:3])
        assert rulings.rulings[0].note == 'a, "quoted" note'
        [(relabelled, new)] = rulings.labels.items()
        assert new == next(label for label in CLASSES if label != audit[relabelled].label)
        assert len(rulings.pending) == 9


@pytest.mark.browser
@needs_browser
def test_keys_rule_and_the_buttons_save(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.run("window.saves = []; HTMLAnchorElement.prototype.click = function () { saves.push(this.download); }")
    browser.press("ArrowDown")
    browser.press("k")
    browser.press("ArrowDown")
    browser.press("u")
    assert browser.run("document.getElementById('status').textContent") == "2 of 12 ruled"
    browser.run("document.getElementById('next').click()")
    assert browser.run("document.activeElement.dataset.place") == "2"
    browser.run("document.getElementById('csv').click(); document.getElementById('json').click()")
    assert browser.run("window.saves") == ["rulings.csv", "rulings.json"]


@pytest.mark.browser
@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out(browser: Chromium, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page)
    browser.run("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    browser.run("document.querySelectorAll('[data-ruling=relabel]').forEach(one => one.click())")
    assert browser.run("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@needs_browser
def test_several_classes_are_boxes(browser: Chromium, tmp_path: Path) -> None:
    truth = {f"{at}.jpg": ("crack, dent", "crack", "none")[at % 3] for at in range(9)}
    system = Evaluation.from_answers("a", truth=truth, answers=truth, classes=("crack", "dent"), multi_label=True)
    audit = LabelAudit([system])
    browser.open(audit.review(tmp_path / "several.html", suspects=9, controls=0))
    browser.run("""
        (() => {
            const cards = [...document.querySelectorAll('.card')];
            const card = cards.find(one => one.querySelector('.label').textContent.endsWith('none'));
            card.querySelector('[data-ruling=relabel]').click();
            card.querySelectorAll('[type=checkbox]')[1].click();
        })()""")
    target = tmp_path / "rulings.json"
    target.write_text(browser.run("asJson()"), encoding="utf-8")
    assert list(audit.rulings(target).labels.values()) == ["dent"]
