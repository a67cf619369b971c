"""The examples run, as a reader would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vlm_tune.testing import FakeGeminiServer, tiny_dataset

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(folder: Path, *arguments: str, key: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "compare_with_gemini.py"), str(folder / "photos"), *arguments]
    environment = {**os.environ, "GEMINI_API_KEY": key}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_gemini_is_compared_with_and_without_shots(tmp_path: Path) -> None:
    tiny_dataset(8, root=tmp_path / "photos")
    with FakeGeminiServer(lambda request: "red" if request.shots else "green") as server:
        done = run(tmp_path, "--base-url", server.url, "--shots", "3", key="a-key")
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 2 * 6
    assert "gemini-3-flash-preview with 3 shots" in done.stdout
    assert (tmp_path / "runs/gemini/report.html").exists()


def test_without_a_key_it_says_what_to_set_and_sends_nothing(tmp_path: Path) -> None:
    tiny_dataset(8, root=tmp_path / "photos")
    with FakeGeminiServer("red") as server:
        done = run(tmp_path, "--base-url", server.url, key=" ")
        assert server.requests == []
    assert done.returncode == 1
    assert "set the environment variable GEMINI_API_KEY" in done.stderr
