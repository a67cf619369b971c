"""The documentation is true: every Python block of README and guides runs, as written.

Only three things are replaced: the folder of photos (the working directory has one), the model id (the embedded
model stands in for the eight-billion one) and the address of the API (a local server).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawn import draw_some
from vlm_tune import demo
from vlm_tune.testing import FakeGeminiServer

ROOT = Path(__file__).parent.parent
GUIDES = ["data", "leakage", "baselines", "train", "merge", "evaluate", "compare", "report"]


def blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGeminiServer]:
    draw_some(tmp_path / "photos", num_train=64, num_test=0, num_twins=0, flat=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    with FakeGeminiServer("dent") as server:
        yield server


def adapted(code: str, server: FakeGeminiServer) -> str:
    """Replace the model and the API's address."""
    return code.replace('"Qwen/Qwen3-VL-8B-Instruct"', repr(str(demo.model_path()))).replace(
        'vt.Gemini("gemini-3-flash-preview")', f'vt.Gemini("gemini-3-flash-preview", base_url={server.url!r})'
    )


def test_the_script_of_the_readme_runs(workplace: FakeGeminiServer) -> None:
    (script,) = blocks(ROOT / "README.md")
    exec(compile(adapted(script, workplace), "README.md", "exec"), {})
    assert Path("runs/damage/report.html").exists()
    assert Path("runs/damage/merged/config.json").exists()


def test_the_example_is_the_script_of_the_readme() -> None:
    (script,) = blocks(ROOT / "README.md")
    assert (ROOT / "examples/car_damage.py").read_text(encoding="utf-8").endswith(script)


def test_the_guides_run_one_after_another(workplace: FakeGeminiServer) -> None:
    namespace: dict[str, object] = {}
    for guide in GUIDES:
        path = ROOT / "docs/guides" / f"{guide}.md"
        found = blocks(path)
        assert found, f"{path} shows no code"
        for block in found:
            exec(compile(adapted(block, workplace), str(path), "exec"), namespace)
    assert Path("runs/damage/report.html").exists()


def test_every_public_name_is_in_the_documentation() -> None:
    import vlm_tune

    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md"))
    missing = [name for name in vlm_tune.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []
