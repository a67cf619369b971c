from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tests.drawn import drawn
from vlm_tune.profiling.copies import copy_groups
from vlm_tune.records import Example


def resized(jpeg: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(jpeg)) as image:
        image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(file, "JPEG", quality=80)
    return file.getvalue()


def test_identical_and_edited_copies_are_found_with_labels_and_splits() -> None:
    first, second, *rest = [photo for photo in drawn().photos if photo.split == "train"][::9]
    examples = [Example(id=f"{n:02}", image=photo.jpeg, label="crack") for n, photo in enumerate(rest[:12])]
    examples += [
        Example(id="z-copy", image=first.jpeg, label="dent"),
        Example(id="edited", image=resized(second.jpeg), label="crack"),
        Example(id="a-first", image=first.jpeg, label="crack"),
        Example(id="second", image=second.jpeg, label="crack"),
    ]
    splits = {example.id: "train" for example in examples} | {"edited": "test"}
    identical, near = sorted(copy_groups(examples, splits), key=lambda group: group.kind)  # type: ignore[arg-type]
    assert (identical.kind, identical.ids, identical.labels) == ("identical", ("z-copy", "a-first"), ("dent", "crack"))
    assert identical.is_conflict
    assert not identical.is_leak
    assert identical.twins == identical.ids
    assert (near.kind, near.ids, near.splits) == ("near_copy", ("edited", "second"), ("test", "train"))
    assert near.is_leak
    assert not near.is_conflict
    assert near.twins == ()


def test_fewer_than_two_photos_have_no_copies() -> None:
    assert copy_groups([], {}) == ()
    assert copy_groups([Example(id="a", image=b"", label="crack")], {}) == ()


def test_a_thousand_times_the_same_photo_is_one_group() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    examples = [Example(id=f"{n}", image=file.getvalue(), label="ab"[n % 2]) for n in range(1000)]
    (group,) = copy_groups(examples, {})
    assert (group.kind, len(group.ids), group.is_conflict) == ("identical", 1000, True)
