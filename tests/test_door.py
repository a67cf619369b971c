"""The door: what `import vlm_tune` offers, and what it must not touch."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vlm_tune as vt


def python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_every_public_name_loads() -> None:
    for name in vt.__all__:
        assert getattr(vt, name) is not None


def test_names_are_sorted_and_listed_by_dir() -> None:
    # Constants, classes, then functions, as ruff sorts them; dir() offers just these.
    assert dir(vt) == sorted(vt.__all__)
    assert len(set(vt.__all__)) == len(vt.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Taks'"):
        vt.Taks  # type: ignore[attr-defined]


def test_importing_loads_nothing_heavy() -> None:
    heavy = [
        "torch",
        "transformers",
        "peft",
        "trl",
        "datasets",
        "open_clip",
        "cv2",
        "matplotlib",
        "pandas",
        "scipy",
        "sklearn",
        "google.genai",
    ]
    loaded = python(f"import sys, vlm_tune; print([m for m in {heavy!r} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_no_module_loads_torch_at_import() -> None:
    code = (
        "import importlib, pathlib, pkgutil, sys, vlm_tune\n"
        "names = [m.name for m in pkgutil.walk_packages(vlm_tune.__path__, 'vlm_tune.')]\n"
        # Torch code through and through, which is first imported when a model runs.
        "names = [n for n in names if not n.startswith('vlm_tune.vlm.fused.')]\n"
        "[importlib.import_module(n) for n in names if not n.endswith('__main__')]\n"
        "print([m for m in ('torch', 'transformers', 'matplotlib.pyplot', 'cv2') if m in sys.modules])"
    )
    assert python(code).strip() == "[]"


def test_importing_takes_under_half_a_second() -> None:
    # Processor time, so that a busy machine does not count; the interpreter's own start does not either.
    code = "import time; t = time.process_time(); import vlm_tune; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(3)) < 0.5


def test_importing_leaves_logging_and_environment_alone() -> None:
    code = (
        "import logging, os, warnings\n"
        "before = (dict(os.environ), list(logging.root.handlers), list(warnings.filters))\n"
        "import vlm_tune\n"
        "print(before == (dict(os.environ), list(logging.root.handlers), list(warnings.filters)))"
    )
    assert python(code).strip() == "True"


def test_profile_stays_a_function_after_its_module_is_imported() -> None:
    assert python("import vlm_tune as vt, vlm_tune.profiling; print(callable(vt.profile))").strip() == "True"


def test_show_versions_names_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    vt.show_versions()
    shown = capsys.readouterr().out
    assert "transformers" in shown
