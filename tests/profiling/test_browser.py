"""A real browser shows the page: filters, sorts, enlarges, stays small, and asks for nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.chromium import Chromium, chromium, find
from tests.profiling.conftest import HOSTILE, TASK
from vlm_tune.data import Dataset
from vlm_tune.profiling import Profile, profile
from vlm_tune.records import Example

pytestmark = [pytest.mark.browser, pytest.mark.skipif(find() is None, reason="no Chromium on the path")]

CARDS = "[...document.querySelectorAll('.card')].sort((a, b) => a.dataset.place - b.dataset.place)"
IDS = f"{CARDS}.map(card => card.querySelector('bdi').textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Chromium, result: Profile, dataset: Dataset, tmp_path: Path) -> Path:
    browser.resize(1440, 900)
    path = result.browse(dataset, tmp_path / "photos.html")
    browser.open(path)
    browser.events.clear()
    return path


def pick(browser: Chromium, control: str, value: str) -> None:
    event = "input" if control == "text" else "change"
    browser.run(
        f"(() => {{ const it = document.getElementById('{control}'); it.value = '{value}';"
        f" it.dispatchEvent(new Event('{event}')); }})()"
    )


def press(browser: Chromium, group: str, name: str) -> None:
    browser.run(f"[...document.querySelectorAll('#{group} button')].find(b => b.firstChild.data === '{name}').click()")


@pytest.mark.usefixtures("page")
class TestFilters:
    def test_all_photos_are_shown_first(self, browser: Chromium, result: Profile) -> None:
        assert browser.run(IDS) == list(result.photos.ids)
        assert browser.run("document.getElementById('status').textContent") == "23 photos"
        assert browser.complaints() == []

    def test_class_split_tag_and_text_narrow_together(self, browser: Chromium, result: Profile) -> None:
        pick(browser, "label", "1")
        dents = [i for i, label in zip(result.photos.ids, result.photos.labels, strict=True) if label == "dent"]
        assert browser.run(IDS) == dents
        press(browser, "splits", "train")
        assert browser.run(IDS) == [name for name in dents if name in ("04.png", "08.png", "12.png", "16.png")]
        press(browser, "tags", "conflict")
        assert browser.run(IDS) == ["04.png"]
        assert browser.run("document.getElementById('status').textContent") == "1 of 23 photos"
        pick(browser, "text", "nothing")
        assert browser.run(IDS) == []
        assert browser.run("document.getElementById('empty').checkVisibility()")
        browser.run("document.getElementById('reset').click()")
        assert len(browser.run(IDS)) == 23

    def test_text_looks_through_ids_classes_groups_and_reasons(self, browser: Chromium) -> None:
        for text, expected in (("TORN", ["torn.jpg"]), ("dent g1", ["08.png"]), ("g0 03", ["03.png"])):
            pick(browser, "text", text)
            assert browser.run(IDS) == expected
        pick(browser, "text", "truncated")
        assert browser.run(IDS) == ["torn.jpg"]

    def test_sorting_puts_what_has_no_value_last(self, browser: Chromium, result: Profile) -> None:
        pick(browser, "sort", "brightness")
        light = dict(zip(result.photos.ids, result.photos.brightness, strict=True))
        readable = [name for name in result.photos.ids if light[name] is not None]
        rising = sorted(readable, key=lambda name: light[name] or 0)
        assert browser.run(IDS) == [*rising, *result.tags["unreadable"]]
        browser.run("document.getElementById('down').click()")
        falling = sorted(readable, key=lambda name: -(light[name] or 0))
        assert browser.run(IDS) == [*falling, *result.tags["unreadable"]]

    def test_copies_can_be_put_together(self, browser: Chromium, result: Profile) -> None:
        pick(browser, "sort", "copies")
        assert browser.run(IDS)[:3] == ["04.png", "07.png", "00.png"]

    def test_the_address_keeps_the_view(self, browser: Chromium, page: Path) -> None:
        press(browser, "tags", "unreadable")
        pick(browser, "sort", "id")
        fragment = browser.run("location.hash")
        browser.open(page.with_name("photos.html"), "")
        browser.run(f"location.hash = '{fragment}'")
        browser.settle()
        assert browser.run(IDS) == ["empty.jpg", "gone.jpg", "torn.jpg"]


@pytest.mark.usefixtures("page")
class TestViewer:
    def test_enter_opens_arrows_step_and_escape_returns(self, browser: Chromium) -> None:
        browser.run("document.querySelector('.card').focus()")
        browser.press("ArrowRight")
        browser.press("ArrowRight")
        browser.press("Enter")
        assert browser.run("document.getElementById('viewer').open")
        assert browser.run("document.getElementById('name').textContent") == "02.png"
        browser.press("ArrowRight")
        assert browser.run("document.getElementById('name').textContent") == "03.png"
        browser.press("Escape")
        browser.settle()
        assert not browser.run("document.getElementById('viewer').open")
        assert browser.run("document.activeElement.dataset.place") == "3"

    def test_it_tells_what_is_known_and_shows_the_copies(self, browser: Chromium) -> None:
        press(browser, "tags", "conflict")
        browser.run("document.querySelector('.card').click()")
        browser.settle()
        text = browser.run("document.querySelector('aside').innerText")
        for words in ("a copy of it carries another label", "One copy", "sharpness", "Qwen3-VL tokens", "g0"):
            assert words in text
        assert browser.run("document.getElementById('large').naturalWidth") == 60
        browser.run("document.querySelector('.strip button').click()")
        assert browser.run("document.getElementById('name').textContent") == "07.png"

    def test_a_file_that_does_not_decode_says_why(self, browser: Chromium) -> None:
        press(browser, "tags", "unreadable")
        browser.run("document.querySelector('.card').click()")
        assert "0 bytes" in browser.run("document.getElementById('broken').textContent")


def test_hostile_words_are_shown_as_text_and_originals_are_found(
    browser: Chromium, odd: Dataset, tmp_path: Path
) -> None:
    browser.open(profile(odd, duplicates=False).browse(odd, tmp_path / "run & <b>#" / "p.html"))
    browser.settle()
    browser.events.clear()
    assert browser.run("document.querySelector('.class').textContent") == HOSTILE
    pick(browser, "label", "0")
    assert len(browser.run(IDS)) == 8
    browser.run("document.querySelector('.card').click()")
    browser.settle()
    assert browser.run("document.getElementById('large').naturalWidth") == 48
    assert "_files" not in browser.run("document.getElementById('large').src")
    assert browser.run("document.querySelectorAll('#x, main img:not(.photo img), aside script').length") == 0
    assert browser.complaints() == []


def test_nothing_comes_from_a_network(browser: Chromium, page: Path) -> None:
    browser.open(page.with_name("photos.html"))
    browser.settle()
    browser.run("document.querySelector('.card').click()")
    browser.settle()
    asked = browser.requests()
    assert len(asked) >= 20
    assert all(address.startswith(page.parent.as_uri()) for address in asked)


def test_only_what_is_in_sight_is_in_the_document(
    browser: Chromium, photo: Callable[..., bytes], tmp_path: Path
) -> None:
    pictures = [photo(16, 16, n) for n in range(50)]
    examples = [
        Example(id=f"{n:05}", image=pictures[n % 50], label=TASK.classes[n % 2]) for n in range(10_000)
    ]  # fmt: skip
    dataset = Dataset(examples, task=TASK)
    browser.resize(1440, 900)
    browser.open(profile(dataset, duplicates=False).browse(dataset, tmp_path / "p.html"))
    browser.settle()
    assert 0 < len(browser.run(IDS)) < 100
    browser.run("scrollTo(0, document.body.scrollHeight / 2)")
    browser.settle()
    middle = browser.run(IDS)
    assert len(middle) < 100
    assert 4_000 < int(middle[0]) < 6_000
    browser.run("document.querySelector('.card').focus()")
    browser.press("End")
    browser.settle()
    assert browser.run("document.activeElement.dataset.place") == "9999"
    assert browser.run(IDS)[-1] == "09999"
    # The last row is in sight, under no edge.
    assert browser.run("document.activeElement.getBoundingClientRect().bottom <= innerHeight")


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_sticks_out(browser: Chromium, page: Path, width: int) -> None:
    browser.resize(width, 800)
    browser.open(page.with_name("photos.html"))
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.run("document.querySelector('.card').click()")
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= width
