"""Draws the pictures of docs/gallery.md from a run of the demo; the documentation's build calls it.

    python tools/gallery.py                  # runs the demo (or reads it back) and draws into runs/gallery
    python tools/gallery.py --experiments    # trains the learning curve and the sweep anew: some minutes on a CPU
    python tools/gallery.py --report         # takes the picture of the report on the first page; it needs Chromium

All is drawn from what the demo left in runs/demo, but for the learning curve and the sweep. They take many trainings,
so what came of them is kept in tools/gallery_records, and drawn from there.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from PIL import Image

    from vlm_tune.evaluation import Evaluation

ROOT = Path(__file__).parents[1]
RECORDS = Path(__file__).parent / "gallery_records"
DRAWN = ROOT / "runs" / "gallery"


class Run:
    """The demo's stages, each read back from its folder or, the first time, done."""

    def __init__(self, folder: Path) -> None:
        from vlm_tune import demo
        from vlm_tune.recipe.stages import Stages

        recipe = demo.recipe(out=folder)
        if not (recipe.run_dir / "report.html").exists():
            demo.run_demo(out=folder)
        self.stages = Stages(recipe)

    @cached_property
    def halves(self) -> tuple[Evaluation, Evaluation, Evaluation]:
        """The base model on one half of the test photos, and base and tuned model on the other."""
        import vlm_tune as vt

        stages = self.stages
        parts = vt.Dataset(stages.clean.test.examples, task=stages.recipe.task).split(test=0.5, seed=1)
        chosen, kept = (vt.Evaluator(part, run_dir=stages.dir) for part in (parts.train, parts.test))
        return chosen.run(stages.merged), kept.run(stages.merged), kept.run(stages.base)

    def photo(self, example_id: str) -> Image.Image:
        """One of the demo's photos."""
        from PIL import Image

        return Image.open(io.BytesIO(self.stages.data.by_id(example_id).read()))


Picture = Callable[[Run], "Figure"]
PICTURES: dict[str, Picture] = {}


def picture(draw: Picture) -> Picture:
    """Enter a function into the gallery under its own name."""
    PICTURES[draw.__name__.strip("_")] = draw
    return draw


@picture
def _profile(run: Run) -> Figure:
    return run.stages.profile.plot()


@picture
def _class_balance(run: Run) -> Figure:
    from vlm_tune import plots

    data = run.stages.clean
    counts = {
        split: {label: sum(example.label == label for example in part) for label in data.task.classes}
        for split, part in (("train", data.train), ("test", data.test))
    }
    return plots.class_balance(counts)


@picture
def _leakage(run: Run) -> Figure:
    return run.stages.leakage.plot(max_pairs=4)


@picture
def _similarity_histogram(run: Run) -> Figure:
    from vlm_tune import plots

    found = run.stages.leakage
    title = "Nearest training photo of each test photo"
    return plots.similarity_histogram(found.nearest, null=found.null, cut=found.cut, title=title)


@picture
def _pair_grid(run: Run) -> Figure:
    from vlm_tune import plots

    pairs = run.stages.leakage.leaks[:4]
    photos = [(run.photo(pair.a_id), run.photo(pair.b_id)) for pair in pairs]
    return plots.pair_grid(photos, [(f"{pair.a_split}: {pair.tier}", pair.b_split) for pair in pairs])


@picture
def _plan(run: Run) -> Figure:
    return run.stages.trainer.plan(run.stages.clean.train).plot()


@picture
def _token_audit(run: Run) -> Figure:
    return run.stages.trainer.audit(run.stages.clean.train).plot()


@picture
def _batch(run: Run) -> Figure:
    import vlm_tune as vt

    augment = vt.Augment(flip=True, crop=(0.6, 1.0), cutmix=0.5)
    trainer = vt.LoRATrainer(run.stages.base, vt.TrainConfig(augment=augment))
    return trainer.show_batch(run.stages.clean.train, num_examples=12).plot()


@picture
def _overfit(run: Run) -> Figure:
    report = run.stages.overfit
    if report is None:
        raise SystemExit("the demo ran without its overfit gate")
    return report.plot()


@picture
def _training(run: Run) -> Figure:
    return run.stages.adapter.plot()


@picture
def _merge(run: Run) -> Figure:
    from vlm_tune.training import MergeReport

    return MergeReport.load(run.stages.dir / "merged").plot()


@picture
def _confusion(run: Run) -> Figure:
    return run.stages.after.plot()


@picture
def _class_scores(run: Run) -> Figure:
    from vlm_tune import plots

    return plots.class_scores(list(run.stages.after.class_scores().items()))


@picture
def _scoreboard(run: Run) -> Figure:
    import vlm_tune as vt

    stages = run.stages
    return vt.Report([stages.floor, stages.before, stages.after]).plot()


@picture
def _comparison(run: Run) -> Figure:
    import vlm_tune as vt

    return vt.Comparison(candidate=run.stages.after, reference=run.stages.before).plot()


@picture
def _matrix(run: Run) -> Figure:
    import vlm_tune as vt

    stages = run.stages
    return vt.ComparisonMatrix([stages.after, stages.before, stages.floor]).plot()


@picture
def _power(run: Run) -> Figure:
    import vlm_tune as vt

    return vt.power(98, difference=0.06, discordance=0.14).plot()


@picture
def _calibration(run: Run) -> Figure:
    import vlm_tune as vt

    return vt.Calibration(run.stages.after).plot()


@picture
def _risk_coverage(run: Run) -> Figure:
    import vlm_tune as vt

    judged, after, _ = run.halves
    return vt.RiskCoverage(after).plot(vt.RiskCoverage(judged).threshold_for(accuracy=0.95, level=None))


@picture
def _cascade(run: Run) -> Figure:
    import vlm_tune as vt

    judged, after, before = run.halves
    threshold = vt.RiskCoverage(judged).threshold_for(accuracy=0.95, level=None)
    return vt.Cascade(first=after, second=before, threshold=threshold).plot()


@picture
def _label_audit(run: Run) -> Figure:
    import vlm_tune as vt

    stages = run.stages
    return vt.LabelAudit([stages.before, stages.after], data=stages.clean, leakage=stages.leakage).plot(most=8)


@picture
def _costs(run: Run) -> Figure:
    from datetime import date

    import vlm_tune as vt
    from vlm_tune.cost import Cost, GpuPrice

    assumed = "assumed for the picture"
    rent = GpuPrice(
        gpu="this processor",
        provider="assumed",
        usd_per_hour=0.2,
        source=assumed,
        checked_on=date(2026, 11, 22),
        valid_from=date(2026, 11, 22),
    )
    return vt.CostModel(
        api=Cost.exact(0.001, basis=assumed),
        tuned=vt.CostModel.of_gpu(run.stages.after, gpu=rent, utilisation=0.5),
        training=vt.CostModel.of_training(run.stages.adapter.training.seconds, gpu=rent),
        labelling=vt.CostModel.of_labelling(417, usd_per_image=0.1, source=assumed),
    ).plot()


@picture
def _learning_curve(run: Run) -> Figure:
    import vlm_tune as vt

    untuned = run.stages.before.accuracy
    return vt.LearningCurve.load(RECORDS / "curve.json").plot(against={"untuned": untuned})


@picture
def _sweep(run: Run) -> Figure:
    import vlm_tune as vt

    return vt.SweepResult.load(RECORDS / "sweep.json").plot()


@picture
def _importance(run: Run) -> Figure:
    import vlm_tune as vt

    return vt.SweepResult.load(RECORDS / "sweep.json").plot_importance()


def experiment(folder: Path) -> None:
    """Train the learning curve and the sweep on the demo's photos, and keep what came of them."""
    import vlm_tune as vt

    run = Run(folder)
    data, base = run.stages.clean, run.stages.base
    trainer = vt.LoRATrainer(base, vt.TrainConfig(learning_rate=3e-3, epochs=2))
    curve = vt.LearningCurve.run(trainer, data, sizes=(15, 30, 60, 120), seeds=(0, 1), run_dir=folder / "curve")
    curve.save(RECORDS / "curve.json")

    few = vt.Dataset(data.train.subset(120, seed=0).examples, task=run.stages.recipe.task).split(test=0.1, seed=0)
    start = vt.LoRATrainer(base, vt.TrainConfig(learning_rate=1e-3, epochs=1))
    space = {"r": vt.Choice(8, 64), "learning_rate": vt.LogUniform(3e-4, 1e-2), "lora_alpha": vt.LogUniform(8, 64)}
    vt.Sweep(space, num_trials=8).run(start, few, run_dir=folder / "sweep").save(RECORDS / "sweep.json")


def photograph(folder: Path) -> None:
    """Keep what the demo's report looks like in a browser."""
    import tempfile

    from PIL import Image

    sys.path.insert(0, str(ROOT))
    from benchmarks.chromium import chromium

    shot = ROOT / "docs" / "assets" / "report.png"
    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), width=1200, height=2040) as browser:
        browser.open(Run(folder).stages.dir / "report.html")
        browser.screenshot(shot)
    Image.open(shot).convert("RGB").quantize(256).save(shot, optimize=True)


def draw(folder: Path, out: Path) -> None:
    """Draw every picture into a folder."""
    from vlm_tune.plots import figure_to_png

    run = Run(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, drawn in PICTURES.items():
        (out / f"{name}.png").write_bytes(figure_to_png(drawn(run), dpi=110))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pictures to the documentation: mkdocs calls this."""
    from mkdocs.structure.files import File

    drawn = {name: DRAWN / f"{name}.png" for name in PICTURES}
    changed = max(source.stat().st_mtime for source in [Path(__file__), *(ROOT / "vlm_tune").rglob("*.py")])
    if not all(path.exists() and path.stat().st_mtime > changed for path in drawn.values()):
        subprocess.run([sys.executable, __file__], check=True, cwd=ROOT)
    for name, path in drawn.items():
        files.append(File.generated(config, f"assets/gallery/{name}.png", content=path.read_bytes()))
    return files


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo", help="folder of the demo's runs")
    parser.add_argument("--out", type=Path, default=DRAWN, help="folder of the pictures")
    parser.add_argument("--experiments", action="store_true", help="train the curve and the sweep anew")
    parser.add_argument("--report", action="store_true", help="take the picture of the report anew")
    given = parser.parse_args()
    if given.experiments:
        RECORDS.mkdir(exist_ok=True)
        experiment(given.demo)
    if given.report:
        photograph(given.demo)
    draw(given.demo, given.out)
