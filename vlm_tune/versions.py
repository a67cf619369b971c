"""What is installed and what it runs on: for provenance in reports and for bug reports."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from vlm_tune import _console

__all__ = ["hardware", "packages", "show_versions"]

_PACKAGES = (
    "vlm-tune",
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "open_clip_torch",
    "opencv-python-headless",
    "pillow",
    "google-genai",
    "openai",
    "ray",
    "optuna",
    "safetensors",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
)


def packages() -> dict[str, str]:
    """Return the installed version of every package a result can depend on."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, str]:
    """Return the machine in words: system, Python, processor cores and accelerators."""
    described = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu_cores": str(os.cpu_count()),
        "gpu": "unknown (torch not loaded)",
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        described["gpu"] = ", ".join(names) or "none"
        described["cuda"] = torch.version.cuda or "none"
    return described


def show_versions() -> None:
    """Print the packages that a result can depend on and the machine, as a table for a bug report."""
    import torch  # noqa: F401  (so that the GPU is known)
    from rich.table import Table

    table = Table("what", "version", title="vlm-tune: versions")
    for name, value in {**packages(), **hardware()}.items():
        table.add_row(name, value)
    _console.show(table)
