from __future__ import annotations

import io
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_tune.data import Dataset
from vlm_tune.errors import DataError
from vlm_tune.task import Task

FINE = [b"apple", b"baby", b"bear"]
COARSE = [b"fruit", b"people", b"large carnivores"]
PROMPT = "What is in the picture?"


def batch(count: int, **changes: Any) -> dict[bytes, Any]:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    content: dict[bytes, Any] = {
        b"data": pixels,
        b"fine_labels": [n % 3 for n in range(count)],
        b"coarse_labels": [n % 3 for n in range(count)],
        b"filenames": [b"photo_%d.png" % n for n in range(count)],
        b"batch_label": b"a batch",
    }
    content.update({key.encode(): value for key, value in changes.items()})
    return {key: value for key, value in content.items() if value is not None}


def dump(path: Path, content: Any) -> Path:
    path.write_bytes(pickle.dumps(content, 2))
    return path


def cifar_100(folder: Path, **changes: Any) -> Path:
    dump(folder / "meta", {b"fine_label_names": FINE, b"coarse_label_names": COARSE})
    dump(folder / "train", batch(9, **changes))
    dump(folder / "test", batch(6))
    (folder / "file.txt~").touch()
    return folder


def cifar_10(folder: Path) -> Path:
    dump(folder / "batches.meta", {b"label_names": FINE, b"num_cases_per_batch": 4, b"num_vis": 3072})
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        dump(folder / name, batch(4, labels=[0, 1, 2, 0], fine_labels=None, coarse_labels=None))
    return folder


def test_cifar_100(tmp_path: Path) -> None:
    data = Dataset.from_cifar(cifar_100(tmp_path), task=PROMPT)
    assert repr(data) == "Dataset(15 examples, 3 classes, train 9, test 6)"
    assert data.task.classes == ("apple", "baby", "bear")
    assert data.by_id("train/1").label == "baby"
    assert data.by_id("train/1").metadata == {"coarse_label": "people", "filename": "photo_1.png"}


def test_pixels_survive(tmp_path: Path) -> None:
    data = Dataset.from_cifar(cifar_100(tmp_path), task=PROMPT)
    planes = batch(9)[b"data"][4].reshape(3, 32, 32)
    image = Image.open(io.BytesIO(data.by_id("train/4").read()))
    assert image.format == "PNG"
    assert np.array_equal(np.asarray(image), planes.transpose(1, 2, 0))


def test_coarse_labels(tmp_path: Path) -> None:
    data = Dataset.from_cifar(cifar_100(tmp_path), task=PROMPT, label="coarse")
    assert data.task.classes == ("fruit", "people", "large carnivores")
    assert data[2].metadata["fine_label"] == "bear"


def test_cifar_10(tmp_path: Path) -> None:
    data = Dataset.from_cifar(cifar_10(tmp_path), task=PROMPT)
    assert repr(data) == "Dataset(12 examples, 3 classes, train 8, test 4)"
    assert data.ids[4] == "data_batch_2/0"
    assert data.splits["test_batch/3"] == "test"
    with pytest.raises(DataError, match="CIFAR-10 has one kind only"):
        Dataset.from_cifar(tmp_path, task=PROMPT, label="coarse")


def test_one_batch_is_not_split(tmp_path: Path) -> None:
    task = Task(prompt="?", classes=("food", "animal"), aliases={"food": ("apple",), "animal": ("baby", "bear")})
    data = Dataset.from_cifar(cifar_100(tmp_path) / "train", task=task)
    assert repr(data) == "Dataset(9 examples, 2 classes)"


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"data": np.zeros((9, 100), np.uint8)}, "rows of 3072 bytes"),
        ({"data": np.zeros((9, 3072), np.int32)}, "rows of 3072 bytes"),
        ({"data": None}, "rows of 3072 bytes"),
        ({"fine_labels": [0, 1]}, "one label for each of its 9 images"),
        ({"fine_labels": [7] * 9}, "a label that is none of the 3 classes"),
        ({"fine_labels": [-1] * 9}, "a label that is none"),
        ({"fine_labels": ["a"] * 9}, "a label that is none"),
        ({"fine_labels": None}, r"has no fine_labels \(it has data, "),
    ],
)
def test_what_is_no_batch(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Dataset.from_cifar(cifar_100(tmp_path, **changes), task=PROMPT)


def test_file_names_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    data = Dataset.from_cifar(cifar_100(tmp_path, filenames=[b"one"]), task=PROMPT)
    assert "filename" not in data.by_id("train/0").metadata


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no CIFAR batch; .*Unpack the archive"):
        Dataset.from_cifar(tmp_path, task=PROMPT)
    dump(tmp_path / "train", batch(3))
    with pytest.raises(DataError, match=r"lacks the file of class names \(meta or batches\.meta\)"):
        Dataset.from_cifar(tmp_path, task=PROMPT)


def test_a_truncated_batch(tmp_path: Path) -> None:
    train = cifar_100(tmp_path) / "train"
    train.write_bytes(train.read_bytes()[:5000])
    with pytest.raises(DataError, match="train is no pickle, or was cut off"):
        Dataset.from_cifar(tmp_path, task=PROMPT)


def test_ten_thousand_take_seconds(tmp_path: Path) -> None:
    dump(tmp_path / "meta", {b"fine_label_names": FINE, b"coarse_label_names": COARSE})
    dump(tmp_path / "train", batch(10_000))
    start = time.process_time()
    assert len(Dataset.from_cifar(tmp_path, task=PROMPT)) == 10_000
    assert time.process_time() - start < 20
