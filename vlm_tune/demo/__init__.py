"""The demo: the whole recipe on a tiny pretrained model and synthetic photos, both inside the package.

The model has three million parameters and the photos are drawn, so the numbers say nothing about real models
on real photos; they show that every stage works, on a CPU, with no key and no network.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.demo.photos import CLASSES, DemoPhoto, DemoPhotos, Twin, photos
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.recipe import Recipe, Result

__all__ = ["DemoPhoto", "DemoPhotos", "Twin", "model_path", "photos", "recipe", "run_demo", "task"]


def model_path() -> Path:
    """Return the folder of the embedded vision-language model."""
    return Path(__file__).parent / "tiny-qwen3-vl"


def task() -> Task:
    """Return the question that the demo asks of every photo."""
    return Task(prompt="What kind of damage does this photo show?", classes=CLASSES)


def recipe(*, seed: int = 0, out: Path | str = "runs/demo", quick: bool = False) -> Recipe:
    """Draw the photos into `out` and return the recipe that the demo runs.

    Args:
        seed: Seed of the photos, the order of training and the adapter's first weights.
        out: Folder to write to; each seed has its own folder below it.
        quick: Use one epoch and skip the overfit gate: a smoke test, its accuracy means nothing.
    """
    from vlm_tune.recipe import DataSource, Opponent, Recipe
    from vlm_tune.training import TrainConfig

    run_dir = Path(out) / f"seed-{seed}{'-quick' if quick else ''}"
    folder = run_dir / "photos"
    if not (folder / "photos.json").exists():
        photos(seed).write(folder)
    return Recipe(
        task=task(),
        data=DataSource(folder=folder),
        model=str(model_path()),
        run_dir=run_dir,
        train=TrainConfig(learning_rate=3e-3, epochs=1 if quick else 3, seed=seed),
        overfit=not quick,
        opponents=() if quick else (Opponent(gemini="gemini-3-flash-preview"),),
        title="Synthetic demo: drawn photos of damaged car panels, a tiny model",
    )


def run_demo(*, seed: int = 0, out: Path | str = "runs/demo", quick: bool = False) -> Result:
    """Run the demo's recipe; what an earlier call finished is not done again."""
    import torch

    from vlm_tune import _console

    _console.notice("Synthetic demo: the photos are drawn and the model is tiny; no key, no network, no GPU.")
    threads = torch.get_num_threads()
    # Tensors this small gain nothing from threads, and wait for them when other programs want the cores.
    torch.set_num_threads(1)
    try:
        options = ["--seed", str(seed), "--out", str(out), *(["--quick"] if quick else [])]
        command = shlex.join(["vlm-tune", "demo", *options])
        return recipe(seed=seed, out=out, quick=quick).run(command=command)
    finally:
        torch.set_num_threads(threads)
