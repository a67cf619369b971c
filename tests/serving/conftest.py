"""What the serving tests share: tiny models that learnt three colours, merged; and a server in another process."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import models
from tests.processes import Child
from tests.training.conftest import COLOURS, outspoken, photo
from vlm_tune.data import Dataset
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM

STOCK = Path(__file__).parent / "stock_server.py"

CONFIG = TrainConfig(
    r=8, lora_alpha=32, learning_rate=1e-2, epochs=10, batch_size=4, regions=("vision", "projector", "language")
)


def colours(first: int, count: int) -> Dataset:
    """Photos of three colours and several sizes, some of them larger than the budget."""
    task = Task(prompt="Which colour?", classes=COLOURS, max_pixels=64 * 48)
    sizes = ((64, 48), (40, 60), (100, 70))
    examples = [
        Example(
            id=f"{label}/{index}",
            image=photo(label, 3 * index + place, width=sizes[index % 3][0], height=sizes[index % 3][1]),
            label=label,
        )
        for index in range(first, first + count)
        for place, label in enumerate(COLOURS)
    ]
    return Dataset(examples, task=task)


@pytest.fixture(scope="session")
def unseen() -> Dataset:
    """Eighteen photos that no model was trained on."""
    return colours(100, 6)


def _trained(family: str, root: Path) -> Adapter:
    build = models.tiny_qwen3_vl if family == "qwen3_vl" else models.tiny_lfm2_vl
    base = outspoken(build(root / "tiny"), root / "base")
    # As published models have it: a bound of their own that is far above the task's.
    settings = base / "processor_config.json"
    settings.write_text(settings.read_text().replace('"longest_edge": 9216', '"longest_edge": 16777216'))
    adapter = LoRATrainer(VLM(base), CONFIG).fit(colours(0, 8), run_dir=root)
    adapter.merge(root / "merged", probe=[])
    return adapter


@pytest.fixture(scope="session")
def qwen3_adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """An adapter on all regions of a tiny Qwen3-VL, merged into `merged` beside it; read only."""
    return _trained("qwen3_vl", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="session")
def lfm2_adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """The same of a tiny LFM2-VL; read only."""
    return _trained("lfm2_vl", tmp_path_factory.mktemp("lfm2"))


@pytest.fixture(params=["qwen3", "lfm2"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each of these adapters in turn; read only."""
    found: Adapter = request.getfixturevalue(f"{request.param}_adapter")
    return found


@contextmanager
def serving(argv: Sequence[str], folder: Path) -> Iterator[str]:
    """Run `vllm serve`'s command with the stock server in its place, from another folder; yields the address."""
    assert argv[:2] == ("vllm", "serve")
    port = free_port()
    words = list(argv[2:])
    words[words.index("--port") + 1] = str(port)
    process = Child(STOCK, *words, cwd=folder)
    try:
        origin = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, process.wait().err
            try:
                get(f"{origin}/health")
                break
            except OSError:
                time.sleep(0.1)
        yield f"{origin}/v1"
    finally:
        process.kill()
        process.wait()


def get(url: str) -> object:
    """Return what a server says, as JSON."""
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number
