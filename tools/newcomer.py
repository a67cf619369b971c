"""Be a newcomer: a fresh virtual environment, the built wheel, and the quickstart page, copied block by block.

    python tools/newcomer.py dist/vlm_tune-0.1.0-py3-none-any.whl

Dependencies are those of the environment that this runs in, which saves their installation; the package is the wheel's.
Only this is replaced on the page: `pip install vlm-tune` takes the wheel, the demo is the quick one, the model is the
embedded one, and a local server stands in for Gemini.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "quickstart.md"
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
_SNIPPET = re.compile(r'^--8<-- "([^":]+)"$', flags=re.MULTILINE)


def blocks(page: Path, *, root: Path = ROOT) -> list[tuple[str, str]]:
    """Return the page's blocks of bash and Python as a reader sees them, files included."""
    text = _SNIPPET.sub(lambda found: (root / found[1]).read_text(encoding="utf-8"), page.read_text(encoding="utf-8"))
    return _BLOCK.findall(text)


def adapted(language: str, code: str, *, wheel: Path, model: str, gemini: str) -> str:
    """Return a block with what a newcomer has and this machine lacks replaced."""
    if language == "bash":
        # Without dependencies, which are there, and past the copy of the package that is there with them.
        install = f'pip install --quiet --ignore-installed --no-deps "{wheel}"'
        return code.replace("pip install vlm-tune\n", f"{install}\n").replace(
            "vlm-tune demo\n", "vlm-tune demo --quick\n"
        )
    asked = 'vt.Gemini("gemini-3-flash-preview"'
    return code.replace('"Qwen/Qwen3-VL-8B-Instruct"', repr(model)).replace(asked, f"{asked}, base_url={gemini!r}")


def environment(folder: Path) -> dict[str, str]:
    """Make a virtual environment with this one's packages behind its own; return the variables that activate it."""
    venv.create(folder, with_pip=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    # A path in a .pth file is searched last, and an editable installation found there has no effect.
    Path(paths["purelib"], "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    path = os.pathsep.join([str(folder / "bin"), kept["PATH"]])
    return {**kept, "PATH": path, "VIRTUAL_ENV": str(folder), "GEMINI_API_KEY": "a-key"}


def draw_photos(folder: Path, *, most: int = 16) -> None:
    """Write some of the demo's drawn photos, a folder for each class."""
    from vlm_tune import demo

    taken: dict[str, int] = {}
    for photo in demo.photos(seed=0).photos:
        taken[photo.label] = taken.get(photo.label, 0) + 1
        if taken[photo.label] <= most:
            path = folder / photo.label / Path(photo.id).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photo.jpeg)


def main(wheel: Path) -> int:
    """Run every block of the page in an empty folder; return the exit status."""
    from vlm_tune import demo
    from vlm_tune.testing import FakeGeminiServer

    with tempfile.TemporaryDirectory() as made, FakeGeminiServer("dent") as gemini:
        home = Path(made) / "home"
        draw_photos(home / "photos")
        activated = environment(Path(made) / "venv")
        for number, (language, code) in enumerate(blocks(PAGE), start=1):
            print(f"--- block {number} of {PAGE.name}: {language}", flush=True)
            text = adapted(language, code, wheel=wheel.resolve(), model=str(demo.model_path()), gemini=gemini.url)
            command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else ["python", "-c", text]
            subprocess.run(command, cwd=home, env=activated, check=True)
        where = ["python", "-c", "import vlm_tune; print(vlm_tune.__file__)"]
        found = subprocess.run(
            where, cwd=home, env=activated, check=True, capture_output=True, text=True
        ).stdout.strip()
        if not Path(found).is_relative_to(Path(made) / "venv"):
            print(f"the package came from {found}, not from the wheel", file=sys.stderr)
            return 1
        print(f"every block ran, with the package of {wheel.name}")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/newcomer.py WHEEL")
    sys.exit(main(Path(sys.argv[1])))
