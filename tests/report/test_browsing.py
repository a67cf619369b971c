"""The examples of a report: their columns, tags and thumbnails, and how a real browser lets one look through them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.chromium import Chromium, chromium, find
from vlm_tune.data import Dataset
from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.report import Report, browsing

Read = Callable[[Path], Any]
Pair = tuple[Evaluation, Evaluation]
Three = tuple[Evaluation, Evaluation, Evaluation]

HOSTILE = ("</script><script>document.title = 'owned'</script>", "<img src=x onerror=alert(1)>", "__proto__")

in_a_browser = [pytest.mark.browser, pytest.mark.skipif(find() is None, reason="no Chromium on the path")]


def test_every_example_has_its_truth_and_what_every_system_said(
    seen: Pair, photos: Dataset, tmp_path: Path, read: Read
) -> None:
    found = read(Report(seen).save(tmp_path / "report.html")).examples
    words = found["words"]
    assert found["id"] == [one.id for one in photos.test]
    assert [words[place] for place in found["truth"]] == [one.label for one in photos.test]
    assert words[: found["numClasses"]] == list(photos.task.classes)
    assert found["systems"] == [["seer", 0], ["oracle", 1]]
    seer, oracle = ([words[place] for place in of] for of in found["said"])
    assert seer == ["“purple?”", *["red"] * (len(photos.test) - 1)]
    assert found["said"][0][0] >= found["numClasses"]
    assert oracle == [one.label for one in photos.test]
    assert found["right"] == [[int(one.label == said) for one, said in zip(photos.test, seer, strict=True)], [1] * 9]
    assert found["sure"] == [[None] * 9, [0.9] * 9]


def test_an_answer_that_is_no_class_is_not_the_class_of_that_name(tmp_path: Path, read: Read) -> None:
    truth = {"a": "refused", "b": "refused", "c": "dent"}
    said = {"a": "refused", "b": "dent"}
    one = Evaluation.from_answers("one", truth=truth, answers=said, classes=("refused", "dent"))
    found = read(Report([one]).save(tmp_path / "report.html")).examples
    assert found["right"] == [[1, 0, -1]]
    assert [found["words"][place] for place in found["said"][0]] == ["refused", "dent", "no answer came"]
    assert found["photo"] == [None] * 3


def test_tags_say_who_was_right(damage: Three, tmp_path: Path, read: Read) -> None:
    _, rival, tuned = damage
    comparison = Comparison(candidate=tuned, reference=rival)
    found = read(Report(damage, sections=[comparison]).save(tmp_path / "report.html")).examples
    tags = {name: [found["id"][place] for place in places] for name, _, places in found["tags"]}
    assert tags["tuned beats rival"] == [name for name, tag in comparison.tags.items() if tag == "candidate_only"]
    assert len(tags["rival beats tuned"]) == comparison.losses
    assert tags["all wrong"] == [f"test/{at:03d}.jpg" for at in range(91, 98)]
    assert tags["somebody wrong"] == [f"test/{at:03d}.jpg" for at in (*range(10), *range(53, 98))]
    assert set(tags["systems disagree"]) == set(tags["somebody wrong"]) - set(tags["all wrong"])


def test_of_very_many_those_in_dispute_come_first(
    damage: Three, tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "_MOST_EXAMPLES", 50)
    page = read(Report(damage).save(tmp_path / "report.html"))
    disputed = next(places for name, _, places in page.examples["tags"] if name == "systems disagree")
    assert disputed == list(range(48))
    assert len(page.examples["id"]) == 50
    assert "48 more examples are left out" in page.words


def test_few_thumbnails_are_in_the_page_and_many_in_a_folder(
    seen: Pair, photos: Dataset, tmp_path: Path, read: Read
) -> None:
    inside = read(Report(seen).save(tmp_path / "few.html"))
    assert not (tmp_path / "few_files").exists()
    assert [photo[0] for photo in inside.examples["photo"]] == [found["id"] for found in inside.all("image")]
    assert "One file" in inside.words
    assert "file:" not in (inside.all("meta")[1]["content"] or "")

    beside = read(Report(seen, photos=3).save(tmp_path / "out put" / "many.html"))
    folder = tmp_path / "out put" / "many_files"
    assert len(beside.all("image")) <= 3
    assert beside.examples["folder"] == "many_files"
    for name in beside.examples["photo"]:
        with Image.open(folder / name) as small:
            assert max(small.size) <= 200
    assert len(list(folder.rglob("*.jpg"))) == len(photos.test)
    assert "img-src data: 'self' file:;" in (beside.all("meta")[1]["content"] or "")
    assert "the folder beside it" in beside.words

    none = read(Report(seen, photos=0).save(tmp_path / "none.html"))
    assert none.examples["photo"] == [None] * len(photos.test)
    assert not (tmp_path / "none_files").exists()


def test_a_photo_that_is_gone_has_no_thumbnail(seen: Pair, photos: Dataset, tmp_path: Path, read: Read) -> None:
    Path(str(photos.test[4].image)).unlink()
    found = read(Report(seen, photos=3).save(tmp_path / "report.html")).examples
    assert [place for place, photo in enumerate(found["photo"]) if photo is None] == [4]


def test_a_folder_that_cannot_be_written_is_an_error(seen: Pair, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        Report(seen, photos=3).save(tmp_path / "file" / "report.html")


def test_no_label_ends_the_data(tmp_path: Path, read: Read) -> None:
    truth = {f"{label}/{at}": label for label in HOSTILE for at in range(2)}
    one = Evaluation.from_answers(HOSTILE[0], truth=truth, answers=truth, classes=HOSTILE)
    path = Report([one], sections=[]).save(tmp_path / "report.html")
    page = read(path)
    assert page.examples["id"] == list(truth)
    assert len(page.all("script")) == 2
    assert "<" not in page.texts["data"]
    assert json.loads(page.texts["data"])["systems"] == [[HOSTILE[0], 0]]


CARDS = "[...document.querySelectorAll('.example')].sort((a, b) => a.dataset.place - b.dataset.place)"
IDS = f"{CARDS}.map(card => card.querySelector('.id').textContent)"
FOCUS = "document.activeElement.dataset.place"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("browser"), height=1200) as started:
        yield started


def pick(browser: Chromium, name: str, value: str) -> None:
    event = "input" if name == "text" else "change"
    control = f"document.querySelector('[data-ui={name}]')"
    browser.run(f"{control}.value = '{value}'; {control}.dispatchEvent(new Event('{event}'))")


def _natural(name: str) -> tuple[str, int]:
    folder, _, number = name.removesuffix(".png").partition("/")
    return folder, int(number)


def click(browser: Chromium, selector: str) -> None:
    browser.run(f"document.querySelector(`{selector}`).click()")


class TestInABrowser:
    pytestmark = in_a_browser

    @pytest.fixture
    def report(self, browser: Chromium, seen: Pair, tmp_path: Path) -> Iterator[Path]:
        seer, oracle = seen
        browser.resize(1440, 1200)
        path = Report(seen, sections=[Comparison(candidate=oracle, reference=seer)]).save(tmp_path / "report.html")
        browser.open(path)
        browser.events.clear()
        yield path
        assert browser.complaints() == []
        assert browser.requests() == []

    @pytest.mark.usefixtures("report")
    def test_filters_narrow_together(self, browser: Chromium, photos: Dataset) -> None:
        every = [one.id for one in photos.test]
        reds = [one.id for one in photos.test if one.label == "red"]
        place = photos.task.classes.index("red")
        assert browser.run(IDS) == every
        pick(browser, "truth", str(place))
        assert browser.run(IDS) == reds
        pick(browser, "who", "0:0")
        wrong = browser.run(IDS)
        assert set(wrong) < set(reds) or wrong == []
        click(browser, "[data-ui=reset]")
        assert browser.run(IDS) == every
        pick(browser, "who", "1:0")
        assert browser.run(IDS) == []
        assert browser.run("document.querySelector('[data-ui=empty]').checkVisibility()")
        click(browser, "[data-ui=reset]")
        pick(browser, "text", "PURPLE")
        assert browser.run(IDS) == every[:1]
        assert browser.run("document.querySelector('[data-ui=status]').textContent") == "1 of 9 photos"

    @pytest.mark.usefixtures("report")
    def test_every_tag_shows_as_many_as_it_says(self, browser: Chromium) -> None:
        number = browser.run("document.querySelectorAll('[data-ui=tags] button').length")
        assert number == 3
        for tag in range(1, number + 1):
            button = f"[data-ui=tags] button:nth-child({tag})"
            click(browser, button)
            assert len(browser.run(IDS)) == int(browser.run(f"document.querySelector('{button} b').textContent")) > 0
            assert browser.run(f"document.querySelector('{button}').ariaPressed") == "true"
            click(browser, button)
            assert len(browser.run(IDS)) == 9

    @pytest.mark.usefixtures("report")
    def test_every_cell_of_a_confusion_matrix_shows_its_photos(self, browser: Chromium) -> None:
        cells = "document.querySelectorAll('.confusion a')"
        number = browser.run(f"{cells}.length")
        assert number >= 6
        for at in range(number):
            count = int(browser.run(f"(() => {{ const it = {cells}[{at}]; it.click(); return it.textContent }})()"))
            assert len(browser.run(IDS)) == count
        assert "→" in browser.run("document.querySelector('[data-ui=cell]').textContent")
        click(browser, "[data-ui=cell]")
        assert len(browser.run(IDS)) == 9

    @pytest.mark.usefixtures("report")
    def test_sorting_and_turning_around(self, browser: Chromium, photos: Dataset) -> None:
        every = [one.id for one in photos.test]
        pick(browser, "sort", "id")
        click(browser, "[data-ui=down]")
        assert browser.run(IDS) == sorted(every, key=_natural, reverse=True)
        pick(browser, "sort", "")
        assert browser.run(IDS) == every[::-1]
        assert browser.run("[...document.querySelector('[data-ui=sort]').options].map(one => one.text)") == [
            "as asked",
            "name",
            "class",
            "how sure oracle is",
        ]

    @pytest.mark.usefixtures("report")
    def test_keys_walk_enlarge_and_search(self, browser: Chromium, photos: Dataset) -> None:
        browser.run("document.querySelector('.example').focus()")
        for key, place in (("ArrowRight", "1"), ("ArrowRight", "2"), ("ArrowLeft", "1"), ("End", "8")):
            browser.press(key)
            assert browser.run(FOCUS) == place
        browser.press("Enter")
        name = "document.querySelector('[data-ui=name]').textContent"
        assert browser.run(name) == photos.test[8].id
        browser.press("ArrowLeft")
        assert browser.run(name) == photos.test[7].id
        assert browser.run("document.querySelectorAll('dialog .said').length") == 2
        assert browser.run("document.querySelector('dialog svg').getAttribute('aria-label')").startswith("Photo ")
        browser.press("Escape")
        browser.run("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        assert browser.run(FOCUS) == "7"
        browser.press("/")
        assert browser.run("document.activeElement.dataset.ui") == "text"

    @pytest.mark.usefixtures("report")
    def test_cards_of_the_head_to_head_are_filtered(self, browser: Chromium, seen: Pair) -> None:
        comparison = Comparison(candidate=seen[1], reference=seen[0])
        left = "[...document.querySelectorAll('.card')].filter(card => !card.hidden).length"
        for tag in ("both_right", "candidate_only", "reference_only", "both_wrong"):
            click(browser, f"[data-show={tag}]")
            assert browser.run(left) == list(comparison.tags.values()).count(tag)

    @pytest.mark.usefixtures("report")
    def test_the_scoreboard_is_sorted_by_a_click(self, browser: Chromium) -> None:
        head = "document.querySelectorAll('.scoreboard thead th')[2]"
        order = "[...document.querySelectorAll('.scoreboard tbody th')].map(one => one.textContent)"
        browser.run(f"{head}.querySelector('button').click()")
        assert browser.run(order) == ["oracle", "seer"]
        assert browser.run(f"{head}.ariaSort") == "descending"
        browser.run(f"{head}.querySelector('button').click()")
        assert browser.run(order) == ["seer", "oracle"]

    @pytest.mark.usefixtures("report")
    def test_on_a_phone_the_scoreboard_is_sorted_by_keyboard_too(self, browser: Chromium) -> None:
        browser.resize(390, 844)
        order = "[...document.querySelectorAll('.scoreboard tbody th')].map(one => one.textContent)"
        buttons = "[...document.querySelectorAll('.scoreboard .sort')]"
        shown = f"{buttons}.map(one => one.getBoundingClientRect()).map(box => [box.width, box.height, box.right])"
        sizes = browser.run(shown)
        assert len(sizes) == 5
        assert all(width > 44 and height > 28 and right <= 390 for width, height, right in sizes)
        browser.run(f"{buttons}[1].focus()")
        browser.press("Enter")
        assert browser.run(order) == ["oracle", "seer"]
        assert browser.run("document.activeElement.parentElement.ariaSort") == "descending"
        browser.press("Enter")
        assert browser.run(order) == ["seer", "oracle"]
        # Drawn as cards it is still a table, with heads and rows, to those who hear it.
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node["role"]["value"] for node in nodes]
        names = [node["name"]["value"] for node in nodes if node["role"]["value"] == "columnheader"]
        assert "Accuracy, %" in names
        assert roles.count("rowheader") >= 2
        browser.resize(1440, 1200)

    def test_thumbnails_beside_the_page_are_shown_and_nothing_else_is_asked_for(
        self, browser: Chromium, seen: Pair, tmp_path: Path
    ) -> None:
        page = Report(seen, photos=3).save(tmp_path / "a b" / "report.html")
        browser.events.clear()
        browser.open(page, "#examples")
        browser.settle()
        assert browser.run("[...document.images].map(image => image.naturalWidth > 0)") == [True] * 9
        assert {address.rpartition("/a%20b/")[2].partition("/")[0] for address in browser.requests()} <= {
            "report.html#examples",
            "report.html",
            "report_files",
        }
        assert browser.complaints() == []

    def test_hostile_names_do_nothing(self, browser: Chromium, tmp_path: Path) -> None:
        truth = {f"{label}/{at}": label for label in HOSTILE for at in range(2)}
        wrong = dict.fromkeys(truth, HOSTILE[1])
        sides = [
            Evaluation.from_answers(name, truth=truth, answers=said, classes=HOSTILE)
            for name, said in ((HOSTILE[0], truth), (HOSTILE[1], wrong))
        ]
        sections = [Comparison(candidate=sides[0], reference=sides[1])]
        browser.events.clear()
        browser.open(Report(sides, sections=sections, title=HOSTILE[0]).save(tmp_path / "report.html"))
        browser.run("document.querySelectorAll('button, .confusion a').forEach(one => one.disabled || one.click())")
        assert browser.run("document.title") == HOSTILE[0]
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert browser.complaints() == []

    def test_nothing_sticks_out_on_a_phone(self, browser: Chromium, report: Path) -> None:
        browser.resize(360, 800)
        browser.open(report)
        browser.settle()
        assert [address for address in browser.requests() if not address.startswith("data:")] == [report.as_uri()]
        browser.events.clear()
        assert browser.run("document.documentElement.scrollWidth") <= 360
        assert browser.run("document.querySelector('.cell').offsetWidth") > 140
