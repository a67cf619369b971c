"""The documentation is true: every Python block of README and pages runs, as written.

Only three things are replaced: the folder of photos (the working directory has one, of small photos), the model id
(the embedded model stands in for the eight-billion one) and the address of the API (a local server).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.drawn import draw_some
from vlm_tune.testing import FakeGeminiServer, FakeOpenAIServer

ROOT = Path(__file__).parent.parent
PAGES = [
    "guides/data",
    "guides/profile",
    "guides/leakage",
    "guides/baselines",
    "guides/gemini",
    "guides/gemini_batch",
    "guides/train",
    "guides/merge",
    "guides/quantize",
    "guides/serve",
    "guides/evaluate",
    "guides/compare",
    "concepts/leakage",
    "concepts/fair_comparison",
    "concepts/statistics",
    "concepts/lora",
    "concepts/merging",
    "guides/openai",
    "recipes/serving",
    "guides/report",
    "guides/label_audit",
    "guides/costs",
    "guides/calibration",
    "guides/augment",
    "guides/curve",
    "guides/sweep",
    "guides/ray",
    "guides/multi_label",
    "recipes/coco",
]
"""Every page with code, in an order in which each finds what it needs."""

THE_SCRIPT = ["index", "quickstart"]
"""Pages whose Python is the script of the README, included from the example."""


@dataclass(frozen=True)
class StandIns:
    """What stands in for the network, and for the large model."""

    model: Path
    gemini: FakeGeminiServer
    openai: FakeOpenAIServer


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(small_demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIns]:
    draw_some(tmp_path / "photos", num_train=48, num_test=0, num_twins=0, flat=True, side=64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    first_tokens = {"dent": 0.8, "crack": 0.1, "scratch": 0.1}
    with FakeGeminiServer("dent") as gemini, FakeOpenAIServer("dent", first_tokens=first_tokens) as openai:
        yield StandIns(small_demo_model, gemini, openai)


def adapted(code: str, stand_ins: StandIns) -> str:
    """Replace the model and the addresses of the APIs."""
    here = {
        '"Qwen/Qwen3-VL-8B-Instruct"': repr(str(stand_ins.model)),
        'vt.Gemini("gemini-3-flash-preview"': f'vt.Gemini("gemini-3-flash-preview", base_url={stand_ins.gemini.url!r}',
        '"http://localhost:8000/v1"': repr(stand_ins.openai.url),
    }
    for written, run in here.items():
        code = code.replace(written, run)
    return code


def test_the_script_of_the_readme_runs(workplace: StandIns) -> None:
    (script,) = blocks(ROOT / "README.md")
    exec(compile(adapted(script, workplace), "README.md", "exec"), {})
    assert Path("runs/damage/report.html").exists()
    assert Path("runs/damage/merged/config.json").exists()


def test_the_example_is_the_script_of_the_readme() -> None:
    (script,) = blocks(ROOT / "README.md")
    assert (ROOT / "examples/quickstart.py").read_text(encoding="utf-8").endswith(script)


def test_the_pages_run_one_after_another(workplace: StandIns) -> None:
    namespace: dict[str, object] = {}
    for page in PAGES:
        path = ROOT / "docs" / f"{page}.md"
        found = blocks(path)
        assert found, f"{path} shows no code"
        for block in found:
            exec(compile(adapted(block, workplace), str(path), "exec"), namespace)
    assert Path("runs/damage/report.html").exists()


def test_no_code_is_left_out() -> None:
    shown = {str(path.relative_to(ROOT / "docs").with_suffix("")): path for path in (ROOT / "docs").rglob("*.md")}
    assert {page for page, path in shown.items() if blocks(path)} == {*PAGES, *THE_SCRIPT}
    assert all(
        block.startswith('--8<-- "examples/quickstart.py') for page in THE_SCRIPT for block in blocks(shown[page])
    )
    for page, path in shown.items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n```py\n") == len(re.findall(r"^<!-- not run: .+ -->\n```py\n", text, re.MULTILINE)), page


def test_every_public_name_is_in_the_documentation() -> None:
    import vlm_tune

    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    missing = [name for name in vlm_tune.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []
