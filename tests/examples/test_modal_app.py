"""The Modal app, run here at tiny size: containers of one's own need an account, so a stand-in calls the functions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import vlm_tune as vt
from vlm_tune.testing import tiny_dataset

SCRIPT = Path(__file__).parents[2] / "examples" / "modal_app.py"


class Function:
    """What `@app.function` makes of a function: it remembers how it is to run, and runs here."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.function, self.options = function, options

    def with_options(self, *, gpu: str) -> Function:
        self.options["gpu"] = gpu
        return self

    def starmap(self, units: Iterable[tuple[int, int]], *, return_exceptions: bool) -> Iterator[Any]:
        assert return_exceptions
        for unit in units:
            try:
                yield self.function(*unit)
            except vt.VlmTuneError as error:
                yield error


class Image:
    """Notes what is installed."""

    def __init__(self, *steps: Any) -> None:
        self.steps = steps

    def __getattr__(self, step: str) -> Callable[..., Image]:
        return lambda *args, **options: Image(*self.steps, (step, *args, options))


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_qwen3_vl: Path) -> ModuleType:
    """The example as a module, on a tiny model and a few squares."""
    stand_in: Any = ModuleType("modal")
    volume = SimpleNamespace(commit=lambda: None)
    stand_in.Volume = SimpleNamespace(from_name=lambda name, *, create_if_missing: volume)
    stand_in.Image = Image()
    stand_in.App = lambda name: SimpleNamespace(
        function=lambda **options: lambda function: Function(function, options),
        local_entrypoint=lambda: lambda function: function,
    )
    monkeypatch.setitem(sys.modules, "modal", stand_in)
    spec = importlib.util.spec_from_file_location("modal_app", SCRIPT)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(vt.Dataset, "from_hf", lambda *args, **options: tiny_dataset(8))
    module.MODEL, module.CACHE = str(tiny_qwen3_vl), str(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    return module  # type: ignore[no-any-return]


def test_a_point_is_a_function_with_a_gpu_a_volume_and_time(app: Any) -> None:
    options = app.train.options
    assert options["gpu"] == "H100" and options["volumes"] == {"/cache": app.volume}
    assert options["timeout"] >= 3600 and options["retries"] >= 1
    assert ("uv_pip_install", "vlm-tune", {}) in options["image"].steps


def test_the_curve_is_put_together(app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    app.main(sizes="6,999", num_seeds=1, gpu="A100")
    assert app.train.options["gpu"] == "A100"
    curve = vt.LearningCurve.load("runs/cifar100/curve.json")
    assert [(point.size, point.seed) for point in curve.points] == [(6, 0)]
    assert "999 images, seed 0: " in capsys.readouterr().out
    assert Path("cache/runs/6-0/points").is_dir()


def test_without_a_single_point_it_says_so(app: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="No point came to anything"):
        app.main(sizes="999", num_seeds=1)
    assert "999 images, seed 0: " in capsys.readouterr().out


def test_the_header_says_how_to_run_it_and_that_it_needs_an_account() -> None:
    header = SCRIPT.read_text(encoding="utf-8").split('"""')[1]
    assert "modal run examples/modal_app.py" in header and "account" in header
