"""The CIFAR-100 example runs on drawn images and a tiny model, and goes on where it was."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlm_tune as vt
from tests import processes
from vlm_tune.testing import tiny_dataset

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar100_scaling.py"
SIZES = ["3", "6", "9", "12", "18"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet files as those of CIFAR-100 on the hub: `img` and `fine_label`, a file for each split."""
    folder = tmp_path_factory.mktemp("cifar100")
    for split, rows in tiny_dataset(8).to_hf().items():
        named = rows.select_columns(["image", "label"]).rename_columns({"image": "img", "label": "fine_label"})
        named.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def run(folder: Path, *arguments: object) -> str:
    done = processes.run(EXAMPLE, "--run-dir", folder / "runs", *map(str, arguments), cwd=folder)
    assert done.status == 0, done.err
    return done.out


def test_a_curve_with_and_without_augmentation(tmp_path: Path, images: Path, tiny_lfm2_vl: Path) -> None:
    given = ["--model", tiny_lfm2_vl, "--data", images, "--seeds", 0, 1, "--epochs", 1, "--test", 5]
    told = run(tmp_path, *given, "--sizes", *SIZES, "--augment", "none")
    assert "train 18, test 5" in told
    assert "Zero-shot: " in told
    assert "was expected of 18; measured" in told
    curve = vt.LearningCurve.load(tmp_path / "runs/none/curve.json")
    assert (curve.sizes, curve.n_test, curve.failed) == ((3, 6, 9, 12, 18), 5, ())
    assert (tmp_path / "runs/none/curve.png").exists()

    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/none/points").iterdir()}
    told = run(tmp_path, *given, "--sizes", 18, "--augment", "none", "cutmix")
    assert "18 images: cutmix against none" in told
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs/none/points").iterdir()} == trained
    assert (tmp_path / "runs/report.html").exists()
