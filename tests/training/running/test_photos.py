import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.conftest import photo
from tests.training.running.faults import SHORT
from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.records import Example
from vlm_tune.training import Augment, LoRATrainer
from vlm_tune.training.augmenting.drawing import Change, Mix, View
from vlm_tune.training.running.photos import Answered, Photos
from vlm_tune.training.running.shelf import Shelf
from vlm_tune.training.running.steps import Row
from vlm_tune.vlm import VLM
from vlm_tune.vlm.fused.lfm2_vl import Lfm2VL
from vlm_tune.vlm.fused.qwen3_vl import Qwen3VL

EXAMPLES = [
    Example(id="0", image=photo("red", 0), label="red"),
    Example(id="1", image=photo("green", 1, width=40, height=80), label="green"),
    Example(id="2", image=photo("red", 2), label="red"),
]


def photos(kept: dict[str, object] | None = None, *, limit: float = 1e6, max_pixels: int = 10**6) -> Photos:
    return Photos(EXAMPLES, max_pixels=max_pixels, kept=kept, limit=limit)


def mix(index: int, drawn: float = 0.75) -> Mix:
    return Mix(index=index, weight=3.0, changes=(), drawn=drawn, centre=(0.5, 0.5))


def test_photos_are_those_that_every_predictor_sees() -> None:
    for index, example in enumerate(EXAMPLES):
        encoded = images.encode(example.image, max_pixels=2000)
        seen = photos(max_pixels=2000)
        assert seen.size(index) == (encoded.width, encoded.height)
        assert (seen.get(index) == np.asarray(images.decode(encoded.data))).all()
        assert seen.shown(Row(index, 1.0)).tolist() == seen.get(index).tolist()


def test_the_size_of_a_photo_that_lies_on_its_side_is_told_upright() -> None:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 200)).save(buffer, "JPEG", exif=exif)
    lying = Photos([Example(id="x", image=buffer.getvalue(), label="a")], max_pixels=20_000)
    before = lying.size(0)
    height, width, _ = lying.get(0).shape
    assert before == lying.size(0) == (width, height) and height > width


def test_photos_are_decoded_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[object] = []
    shown = images.shown
    monkeypatch.setattr(images, "shown", lambda image, **how: reads.append(image) or shown(image, **how))
    kept: dict[str, object] = {}
    for _ in range(2):
        for index in range(3):
            photos(kept).get(index)
    assert len(reads) == 3 and Shelf.of(kept, "decoded").num_bytes == 2 * 64 * 48 * 3 + 40 * 80 * 3
    few = photos(limit=10_000)
    few.get(0), few.get(0)
    assert len(reads) == 4 and not few.full
    few.get(1), few.get(1)
    assert len(reads) == 6 and few.full


def test_a_mixed_photo_has_both_answers_by_the_size_of_the_first() -> None:
    seen = photos()
    assert seen.answers(Row(0, 2.0)) == (Answered("red", 1.0, 2.0),)
    assert seen.answers(Row(0, 2.0, View(mix=mix(1)))) == (Answered("red", 0.75, 1.5), Answered("green", 0.25, 0.75))
    # 40 x 80: half of each side again, but rounded to other pixels if lambda is odd.
    share = mix(0, 0.3).share(40, 80)
    first, second = seen.answers(Row(1, 1.0, View(mix=mix(0, 0.3))))
    assert (first.share, second.share) == (share, 1 - share) != (0.3, 0.7)


def test_one_label_is_one_answer_and_nothing_of_a_photo_is_none() -> None:
    seen = photos()
    assert seen.answers(Row(0, 1.0, View(mix=mix(2)))) == (Answered("red", 1.0, 0.75 + 0.75),)
    assert seen.answers(Row(0, 1.0, View(mix=mix(1, 1.0)))) == (Answered("red", 1.0, 1.0),)
    assert seen.answers(Row(0, 1.0, View(mix=mix(1, 0.0)))) == (Answered("green", 1.0, 3.0),)


def test_each_photo_is_changed_before_they_are_mixed() -> None:
    seen = photos()
    flip = (Change("flip"),)
    half = Mix(index=2, weight=1.0, changes=flip, drawn=0.25)
    shown = seen.shown(Row(0, 1.0, View(changes=(), mix=half)))
    expected = np.rint(np.float32(0.25) * seen.get(0) + np.float32(0.75) * seen.get(2)[:, ::-1])
    assert (shown == expected).all()


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("tiny_qwen3_vl", {}),
        ("tiny_qwen3_vl", {"fast": False}),
        ("tiny_lfm2_vl", {"regions": ("language",)}),
        ("tiny_lfm2_vl", {"augment": Augment(flip=True, mixup=0.4)}),
    ],
    ids=["patches", "stock", "features", "changed"],
)
def test_a_second_training_reads_no_photo_again(
    request: pytest.FixtureRequest,
    colours: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    settings: dict[str, object],
) -> None:
    tiny_vlm = request.getfixturevalue(model)
    VLM(tiny_vlm).unload()
    config = SHORT.model_copy(update=settings | {"epochs": 1.0})
    # As files, so that every way of reading is seen.
    data = Dataset(
        [_filed(example, tmp_path / f"{place}.png") for place, example in enumerate(colours)], task=colours.task
    )
    first = LoRATrainer(VLM(tiny_vlm), config).fit(data, run_dir=tmp_path / "first")
    reads: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or read_bytes(path))
    looks: list[object] = []
    for tower in (Qwen3VL, Lfm2VL):
        monkeypatch.setattr(tower, "see", _noted(tower.see, looks))
    again = LoRATrainer(VLM(tiny_vlm), config).fit(data, run_dir=tmp_path / "again")
    part = Dataset(data.examples[:12], task=data.task)
    LoRATrainer(VLM(tiny_vlm), config).fit(part, run_dir=tmp_path / "part")
    assert not [path for path in reads if path.suffix == ".png"]
    assert again.training.losses == first.training.losses
    assert bool(looks) == (settings not in ({"fast": False}, {"regions": ("language",)}))
    kept = VLM(tiny_vlm).load().kept
    VLM(tiny_vlm).unload()
    assert kept == {}


def _filed(example: Example, path: Path) -> Example:
    path.write_bytes(example.read())
    return example.model_copy(update={"image": path})


def _noted(function: object, calls: list[object]) -> object:
    def call(*args: object) -> object:
        calls.append(args)
        return function(*args)  # type: ignore[operator]

    return call
