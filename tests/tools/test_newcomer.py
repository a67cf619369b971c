"""The newcomer's script reads the page as a reader sees it, and replaces only what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools import newcomer


def test_blocks_come_in_order_with_their_files(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print(1)\n")
    page = tmp_path / "page.md"
    page.write_text('```bash\nls\n```\n```yaml\na: 1\n```\n```python\n--8<-- "script.py"\n```\n')
    assert newcomer.blocks(page, root=tmp_path) == [("bash", "ls\n"), ("python", "print(1)\n\n")]


def test_everything_that_is_replaced_is_on_the_page() -> None:
    written = newcomer.blocks(newcomer.PAGE)
    assert {language for language, _ in written} == {"bash", "python"}
    replaced = [
        newcomer.adapted(language, code, wheel=Path("/dist/a.whl"), model="/a/model", gemini="http://here")
        for language, code in written
    ]
    both = "\n".join(replaced)
    for words in ("/dist/a.whl", "demo --quick", "'/a/model'", "base_url='http://here'"):
        assert words in both
    assert "pip install vlm-tune" not in both and "Qwen/" not in both
    for language, code in zip([language for language, _ in written], replaced, strict=True):
        if language == "python":
            compile(code, "quickstart.md", "exec")


def test_the_environment_is_fresh_and_sees_the_dependencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(newcomer.ROOT))
    # Without pip, which takes seconds to unpack.
    monkeypatch.setattr(newcomer.venv, "create", lambda folder, with_pip: _create(folder))
    activated = newcomer.environment(tmp_path / "venv")
    code = "import sys, importlib.util as u; print(sys.prefix, u.find_spec('torch') is not None)"
    done = subprocess.run(["python", "-c", code], env=activated, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "venv"), "True"]
    code = "import vlm_tune"
    bare = subprocess.run(["python", "-c", code], env=activated, cwd=tmp_path, capture_output=True, check=False)
    assert bare.returncode == 1, "the package of this environment is seen although no wheel was installed"


def _create(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
