"""The fixed rule of one number: reproduced exactly, with a warning where it cannot work."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.leakage.planting import COPIES, jpeg_bytes, png_bytes, scene
from vlm_tune.data import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.leakage import LeakageChecker
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="Which one?", classes=("a", "b"))


class Pixels:
    """Sixteen grey levels as they are: the photo is its own embedding."""

    name = "grey levels"
    mirror_invariant = False

    def embed(self, images: Sequence[bytes]) -> NDArray[np.float32]:
        rows = [np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float32).ravel() for data in images]
        return np.stack([row / np.linalg.norm(row) for row in rows])


def strip(levels: NDArray[np.uint8]) -> bytes:
    return png_bytes(Image.fromarray(levels.reshape(4, 4), "L"))


def dataset(photos: dict[str, tuple[bytes, SplitName]]) -> Dataset:
    examples = [Example(id=name, image=data, label="ab"[i % 2]) for i, (name, (data, _)) in enumerate(photos.items())]
    return Dataset(examples, task=TASK, splits={name: split for name, (_, split) in photos.items()})


def random_strips(seed: int, spread: int) -> tuple[Dataset, dict[str, NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    levels = {f"{at:03d}": rng.integers(120 - spread, 120 + spread, 16).astype(np.uint8) for at in range(160)}
    levels["159"], levels["158"] = levels["000"], levels["001"]
    splits: tuple[SplitName, ...] = ("train", "train", "validation", "test")
    data = dataset({name: (strip(values), splits[int(name) % 4]) for name, values in levels.items()})
    return data, {name: values / np.linalg.norm(values.astype(float)) for name, values in levels.items()}


@pytest.mark.parametrize(("threshold", "spread"), [(0.95, 60), (0.9, 100), (0.99, 40), (1.0, 50)])
def test_it_is_the_rule_of_the_greatest_cosine_exactly(threshold: float, spread: int) -> None:
    data, vectors = random_strips(3, spread)
    train = np.stack([vectors[one.id] for one in data.train])
    expected = {
        split: {one.id for one in part if (train @ vectors[one.id]).max() >= threshold - 1e-12}
        for split, part in (("test", data.test), ("validation", data.validation))
    }
    report = LeakageChecker(Pixels(), threshold=threshold).check(data)
    assert set(report.leaked_test_ids) == expected["test"]
    assert set(report.leaked_ids) == expected["test"] | expected["validation"]
    assert report.threshold == report.cut == threshold
    assert {pair.rule for pair in report.pairs} == {"threshold"}
    assert len(report.leaks) == len(report.pairs)


@pytest.mark.parametrize("strategy", ["regroup", "drop_train", "drop_test"])
def test_after_resolving_it_finds_nothing(strategy: str) -> None:
    data, _ = random_strips(3, 75)
    checker = LeakageChecker(Pixels(), threshold=0.95)
    report = checker.check(data)
    assert 5 < len(report.leaked_test_ids) < 40
    resolved = report.resolve(data, strategy)  # type: ignore[arg-type]
    assert checker.check(resolved).leaks == ()
    changed = report.changes(strategy)  # type: ignore[arg-type]
    assert changed["explanation"].str.contains("called a leak by the threshold alone").all()


def test_it_warns_where_training_photos_pass_it_among_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    alike, vectors = random_strips(1, 30)
    report = LeakageChecker(Pixels(), threshold=0.95).check(alike)
    train = np.stack([vectors[one.id] for one in alike.train])
    scores = train @ train.T - 2 * np.eye(len(train))
    passing = int((scores.max(axis=1) >= 0.95).sum())
    assert passing == len(train)
    assert report.warning.startswith(f"{passing} of {passing} training photos (100%) are this similar to another")
    assert report.warning in capsys.readouterr().err
    report.show()
    assert "Warning: 80 of 80 training photos" in " ".join(capsys.readouterr().out.split())
    apart, _ = random_strips(1, 119)
    assert LeakageChecker(Pixels(), threshold=0.97).check(apart).warning == ""


def test_the_pixels_say_which_of_its_pairs_are_copies(capsys: pytest.CaptureFixture[str]) -> None:
    photos: dict[str, tuple[bytes, SplitName]] = {f"train{i}": (jpeg_bytes(scene(i)), "train") for i in range(8)}
    photos |= {f"test{i}": (jpeg_bytes(scene(100 + i)), "test") for i in range(3)}
    photos["copy"] = (jpeg_bytes(COPIES["darkened"](scene(2))), "test")
    report = LeakageChecker(PixelEmbedder(), threshold=0.1).check(dataset(photos))
    assert set(report.leaked_test_ids) == {"test0", "test1", "test2", "copy"}
    assert {pair.a_id for pair in report.leaks if pair.is_copy} == {"copy"}
    report.show()
    said = " ".join(capsys.readouterr().out.split())
    assert "4 test photos have a training photo at 0.1 or more; pixels prove 1 of them copies" in said


def test_a_threshold_that_is_no_cosine_is_refused() -> None:
    with pytest.raises(ValueError, match="between -1 and 1, got 95"):
        LeakageChecker(threshold=95)
