"""What many tests share: tiny real models, built once per session, and photos to ask about."""

from __future__ import annotations

import gc
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

# Tiny tensors gain nothing from threads, and the threads of two test processes get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A loaded machine is no failure; what a test checks does not depend on its speed.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


# Files that take longest go to the workers first, so that none of them works alone at the end.
LONGEST = (
    "test_docs.py",
    "test_backend.py",
    "test_distributed.py",
    "test_checker.py",
    "test_recipe.py",
    "test_cifar100_scaling.py",
    "test_notebook.py",
    "test_running.py",
    "test_sweep.py",
    "test_faults.py",
    "test_trainer.py",
    "test_served.py",
    "test_car_damage.py",
    "test_kernels.py",
    "test_profiler.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collectstart() -> None:
    """Let the garbage collector rest while modules come to stay: a fifth of that time is its own."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Wake it again."""
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def freeze() -> None:
    """Let the garbage collector pass over what is there already, mostly modules and their functions.

    Every model that is dropped calls it, and half a second of looking at torch and its friends each time adds up.
    """
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let everything be freed at the end, as libraries in C++ expect."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_qwen3_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Qwen3-VL with random weights; read only."""
    from tests import models

    return models.tiny_qwen3_vl(tmp_path_factory.mktemp("models") / "tiny-qwen3-vl")


@pytest.fixture(scope="session")
def tiny_lfm2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny LFM2-VL with random weights; read only."""
    from tests import models

    return models.tiny_lfm2_vl(tmp_path_factory.mktemp("models") / "tiny-lfm2-vl")


@pytest.fixture(scope="session")
def small_demo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the embedded model, which is trained, made to read small photos as they are; read only."""
    from tests import drawn

    return drawn.small_demo_model(tmp_path_factory.mktemp("models") / "tiny-qwen3-vl")


@pytest.fixture(params=["qwen3_vl", "lfm2_vl"])
def tiny_vlm(request: pytest.FixtureRequest) -> Path:
    """Folder of each tiny model in turn; read only."""
    folder: Path = request.getfixturevalue(f"tiny_{request.param}")
    return folder


@pytest.fixture(scope="session")
def noise_png() -> Callable[[int, int, int], bytes]:
    """Make a PNG of noise: (width, height, seed) -> bytes."""

    def make(width: int, height: int, seed: int = 0) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real images; tests that use it carry the marker `data`."""
    folder = os.environ.get("VLM_TUNE_TEST_DATA")
    if not folder:
        pytest.skip("VLM_TUNE_TEST_DATA does not name the folder of real images")
    return Path(folder)
