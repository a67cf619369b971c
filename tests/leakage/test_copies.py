"""Copies in a set, whatever the splits: found once, chained, and few however many there are."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from tests.leakage.planting import COPIES, jpeg_bytes, png_bytes, scene
from vlm_tune.data import Dataset
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.images import blank
from vlm_tune.leakage import Copies, find_copies
from vlm_tune.records import Example
from vlm_tune.task import Task

PHOTOS = {f"p{i}": jpeg_bytes(scene(i)) for i in range(14)}


def find(photos: dict[str, bytes], *, labels: str = "ab") -> Copies:
    every = [
        Example(id=name, image=data, label=labels[i % len(labels)]) for i, (name, data) in enumerate(photos.items())
    ]
    return find_copies(every, embedder=PixelEmbedder())


def test_copies_are_grouped_and_the_rest_is_left_alone() -> None:
    planted = {
        "same": PHOTOS["p2"],
        "pixels": png_bytes(scene(20)),
        "again": png_bytes(scene(20)) + b"\0",
        "mirror": jpeg_bytes(COPIES["mirrored"](scene(5))),
        "darker": jpeg_bytes(COPIES["darkened"](scene(5))),
    }
    found = find(PHOTOS | planted)
    assert set(map(frozenset, found.groups)) == {
        frozenset({"p2", "same"}),
        frozenset({"pixels", "again"}),
        frozenset({"p5", "mirror", "darker"}),
    }
    assert found.groups[0] == ("darker", "mirror", "p5")
    tiers = {frozenset((pair.a_id, pair.b_id)): (pair.tier, pair.evidence.get("same")) for pair in found.pairs}
    assert tiers[frozenset({"p2", "same"})] == ("identical", "bytes")
    assert tiers[frozenset({"pixels", "again"})] == ("identical", "pixels")
    # Three copies hang together by two links.
    assert len(found.pairs) == 4
    assert len(found.frame()) == 4
    assert {pair.a_split for pair in found.pairs} == {None}


def test_a_clean_set_has_none() -> None:
    found = find(PHOTOS)
    assert (found.pairs, found.groups, found.conflicts) == ((), (), ())
    assert found.num_examples == len(PHOTOS)


def test_labels_decide_nothing_but_conflicts() -> None:
    photos = PHOTOS | {"copy": jpeg_bytes(COPIES["cropped"](scene(3)))}
    one, other = find(photos, labels="ab"), find(photos, labels="a")
    assert one.groups == other.groups == (("copy", "p3"),)
    assert [pair.similarity for pair in one.pairs] == [pair.similarity for pair in other.pairs]
    assert len(one.conflicts) == 1
    assert other.conflicts == ()


def test_splits_of_a_dataset_are_named() -> None:
    names = [*PHOTOS, "twin"]
    every = [
        Example(id=name, image=(PHOTOS | {"twin": PHOTOS["p0"]})[name], label="ab"[i % 2])
        for i, name in enumerate(names)
    ]
    task = Task(prompt="Which one?", classes=("a", "b"))
    data = Dataset(every, task=task, splits={name: "test" if name == "twin" else "train" for name in names})
    (pair,) = find_copies(data, embedder=PixelEmbedder()).pairs
    assert (pair.a_id, pair.a_split, pair.b_id, pair.b_split) == ("p0", "train", "twin", "test")


def test_twenty_thousand_equal_photos_are_one_group_at_once() -> None:
    data = blank(12, 12)
    every = [Example(id=f"{i:05d}", image=data, label="a") for i in range(20_000)]
    tracemalloc.start()
    began = time.perf_counter()
    found = find_copies(every, embedder=PixelEmbedder())
    seconds = time.perf_counter() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.pairs) == 1
    assert found.pairs[0].explanation == "same bytes, as in 20,000 photos"
    assert len(found.groups[0]) == 20_000
    assert peak < 60e6
    assert seconds < 20


def test_one_photo_and_none_at_all() -> None:
    assert find({"p0": PHOTOS["p0"]}).groups == ()
    assert find({}).num_examples == 0
    torn = find({"torn": PHOTOS["p0"][:300], "gone": b""})
    assert set(torn.unreadable) == {"torn", "gone"}


def test_a_hidden_conflict_among_equal_photos_is_named() -> None:
    every = [Example(id=f"{i}", image=PHOTOS["p0"], label="aab"[i]) for i in range(3)]
    found = find_copies(every, embedder=PixelEmbedder())
    assert [(pair.a_id, pair.b_id, pair.a_label, pair.b_label) for pair in found.conflicts] == [("0", "2", "a", "b")]


def test_a_missing_file_is_listed(tmp_path: Path) -> None:
    every = [
        Example(id="gone", image=tmp_path / "gone.jpg", label="a"),
        Example(id="p0", image=PHOTOS["p0"], label="a"),
    ]
    assert set(find_copies(every, embedder=PixelEmbedder()).unreadable) == {"gone"}


@pytest.mark.data
def test_published_copies_hang_together(test_data: Path) -> None:
    folder = test_data / "near_duplicates"
    names = ("hflip", "resize", "rotation")
    photos = {path.name: path.read_bytes() for path in sorted((folder / "base_images").glob("*.jpg"))}
    copies = {
        f"ukbench00120_{how}.jpg": (folder / "mixed_images" / f"ukbench00120_{how}.jpg").read_bytes() for how in names
    }
    found = find(photos | copies)
    assert found.groups == (("ukbench00120.jpg", *sorted(copies)),)
