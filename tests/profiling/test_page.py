from __future__ import annotations

import html
import json
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.profiling.conftest import HOSTILE, TASK
from vlm_tune.data import Dataset
from vlm_tune.errors import DataError
from vlm_tune.profiling import Profile, profile
from vlm_tune.records import Example


class Blocks(HTMLParser):
    """Collects what the scripts of a page hold, as a browser would cut them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def content(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Blocks(page.read_text(encoding="utf-8")).scripts[0])
    return found


@pytest.fixture(scope="module")
def page(result: Profile, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return result.browse(dataset, tmp_path_factory.mktemp("run") / "deep" / "photos.html")


def test_every_photo_is_there_with_its_class_split_and_tags(page: Path, result: Profile) -> None:
    found = content(page)
    photos = found["photos"]
    assert photos["id"] == list(result.photos.ids)
    assert [found["labels"][label] for (label,) in photos["label"]] == list(result.photos.labels)
    assert [None if split < 0 else found["splits"][split] for split in photos["split"]] == list(result.photos.splits)
    tags = {name.replace(" ", "_"): tuple(photos["id"][place] for place in ids) for name, _, ids in found["tags"]}
    assert tags == result.tags
    assert [[photos["id"][place] for place in ids] for ids in found["copies"]] == [["04.png", "07.png"]]
    assert "empty" in found["reasons"]["20"]


def test_thumbnails_are_small_and_shared_by_copies(page: Path, result: Profile) -> None:
    photos = content(page)["photos"]
    assert [name is None for name in photos["thumbnail"]] == [
        name in result.tags["unreadable"] for name in photos["id"]
    ]
    assert photos["thumbnail"][4] == photos["thumbnail"][7]
    files = {file.stem: file for file in (page.parent / "photos_files").rglob("*.jpg")}
    assert set(files) == set(photos["thumbnail"]) - {None}
    for name, file in files.items():
        assert file.parent.name == name[:2]
        with Image.open(file) as image:
            assert image.format == "JPEG"
            assert max(image.size) <= 256


def test_originals_are_named_as_seen_from_the_page(odd: Dataset, tmp_path: Path) -> None:
    from urllib.parse import unquote

    found = content(profile(odd, duplicates=False).browse(odd, tmp_path / "run" / "p.html"))
    for example, original in zip(odd, found["photos"]["original"], strict=True):
        assert (tmp_path / "run" / unquote(original)).resolve() == example.image
    # An address must not end at a mark that the file's name has.
    assert not re.search(r"[ <>#]", "".join(found["photos"]["original"]))


def test_hostile_words_stay_words(odd: Dataset, tmp_path: Path) -> None:
    page = profile(odd, duplicates=False).browse(odd, tmp_path / "p.html")
    blocks = Blocks(page.read_text(encoding="utf-8"))
    assert len(blocks.scripts) == 2
    assert blocks.tags.count("img") == 1
    assert HOSTILE in content(page)["labels"]
    assert [HOSTILE, HOSTILE] in content(page)["photos"]["more"][0]


def test_a_photo_of_several_classes_lists_them_all(odd: Dataset, tmp_path: Path) -> None:
    found = content(profile(odd, duplicates=False).browse(odd, tmp_path / "p.html"))
    named = [[found["labels"][label] for label in several] for several in found["photos"]["label"]]
    assert named[:4] == [[HOSTILE], ["dent"], [HOSTILE, "dent"], ["none"]]


def test_the_page_loads_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'; img-src 'self' file:;" in html.unescape(text)
    assert not re.search(r"https?://", text)


def test_a_second_page_replaces_the_first(result: Profile, dataset: Dataset, tmp_path: Path) -> None:
    first = result.browse(dataset, tmp_path / "p.html")
    stale = tmp_path / "p_files" / "stale.jpg"
    stale.write_bytes(b"")
    before = first.read_bytes()
    assert result.browse(dataset, tmp_path / "p.html").read_bytes() == before
    assert not stale.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "p_files"]


def test_another_dataset_is_refused(result: Profile, dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run profile"):
        result.browse(dataset.without(["03.png"]), tmp_path / "p.html")


def test_photos_that_went_missing_since_are_shown_without_a_picture(
    photo: Callable[..., bytes], tmp_path: Path
) -> None:
    examples = []
    for n in range(4):
        path = tmp_path / f"{n}.png"
        path.write_bytes(photo(20, 20, n))
        examples.append(Example(id=f"{n}", image=path, label=TASK.classes[n % 2]))
    dataset = Dataset(examples, task=TASK)
    found = profile(dataset, duplicates=False)
    (tmp_path / "2.png").unlink()
    thumbnails = content(found.browse(dataset, tmp_path / "p.html"))["photos"]["thumbnail"]
    assert [name is None for name in thumbnails] == [False, False, True, False]


FULL = """
import resource, sys
from pathlib import Path
from vlm_tune.data import Dataset
from vlm_tune.errors import StorageError
from vlm_tune.profiling import profile
from vlm_tune.task import Task
folder = Path(sys.argv[1])
data = Dataset.from_folder(folder / "photos", task=Task(prompt="?", classes=("a", "b")))
found = profile(data, duplicates=False)
found.browse(data, folder / "run" / "p.html")
before = sorted(folder.rglob("*"))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    found.browse(data, folder / "run" / "p.html")
except StorageError as error:
    print(error)
    sys.exit(7 if sorted(folder.rglob("*")) == before else 8)
"""


@pytest.mark.parametrize("limit", [700, 4_000])
def test_a_full_disk_leaves_the_earlier_page_as_it_was(
    limit: int, noise_png: Callable[[int, int, int], bytes], tmp_path: Path
) -> None:
    # The smaller limit stops the thumbnails, the larger one the page.
    assert resource.RLIMIT_FSIZE is not None
    for n in range(6):
        path = tmp_path / "photos" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise_png(30, 30, n))
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path, str(limit)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stdout + done.stderr
    assert "no space left" in done.stdout
