"""What the training tests share: photos that a tiny model can learn, and tiny models that can learn them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from vlm_tune.data import Dataset
from vlm_tune.records import Example
from vlm_tune.task import Task

COLOURS = ("red", "green", "blue")


def photo(label: str, seed: int, *, width: int = 64, height: int = 48) -> bytes:
    """A noisy PNG of one colour."""
    pixels = np.random.default_rng(seed).integers(0, 40, (height, width, 3), dtype=np.uint8)
    pixels[..., COLOURS.index(label)] += 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def colours() -> Dataset:
    """Twenty-four photos of three colours."""
    task = Task(prompt="Which colour?", classes=COLOURS)
    examples = [
        Example(id=f"{label}/{index}", image=photo(label, 3 * index + place), label=label)
        for index in range(8)
        for place, label in enumerate(COLOURS)
    ]
    return Dataset(examples, task=task)


@pytest.fixture(scope="session")
def mixtures() -> Dataset:
    """Twenty-four photos that show any of three colours together, or none of them."""
    task = Task(prompt="Which colours are in it?", classes=COLOURS, multi_label=True)
    examples = [
        Example(id=f"{label}/{index}", image=mixture(task.members(label), 8 * index + place), label=label)
        for index in range(3)
        for place, label in enumerate(task.answers)
    ]
    return Dataset(examples, task=task)


def mixture(labels: Sequence[str], seed: int) -> bytes:
    """A noisy PNG of several colours mixed."""
    pixels = np.random.default_rng(seed).integers(0, 40, (48, 64, 3), dtype=np.uint8)
    for label in labels:
        pixels[..., COLOURS.index(label)] += 200
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def outspoken(folder: Path, target: Path) -> Path:
    """Copy a tiny model and let it be sure of its answers: as initialised, its logits are too flat."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    last = [name for name in weights if name.endswith(("language_model.norm.weight", "embedding_norm.weight"))]
    for name in last:
        weights[name] *= 8
    assert len(last) == 1, last
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


@pytest.fixture(scope="session")
def bold_qwen3_vl(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen3-VL that can learn an answer by heart; read only."""
    return outspoken(tiny_qwen3_vl, tmp_path_factory.mktemp("models") / "bold-qwen3-vl")


@pytest.fixture(scope="session")
def bold_lfm2_vl(tiny_lfm2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny LFM2-VL that can learn an answer by heart; read only."""
    return outspoken(tiny_lfm2_vl, tmp_path_factory.mktemp("models") / "bold-lfm2-vl")


@pytest.fixture(params=["qwen3_vl", "lfm2_vl"])
def bold_vlm(request: pytest.FixtureRequest) -> Path:
    """Folder of each of these models in turn; read only."""
    folder: Path = request.getfixturevalue(f"bold_{request.param}")
    return folder
