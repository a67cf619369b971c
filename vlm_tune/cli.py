"""The command line: a thin layer over the library. `vlm-tune --help` lists the commands."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vlm_tune import __version__, _processes
from vlm_tune.errors import StoppedError, VlmTuneError

__all__ = ["app", "main"]

app = typer.Typer(
    name="vlm-tune",
    help="Does a small open vision-language model fine-tuned on your photos beat the API you pay for?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

STOPPED = 75
"""Exit status of a training that was asked to end: sysexits.h's EX_TEMPFAIL, "try again later"."""

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe.yaml; see the quickstart.")]


def main() -> None:
    """Run the command line; an error the library raises on purpose is one message, not a traceback."""
    try:
        app()
    except StoppedError as error:
        _complain(str(error))
        sys.exit(STOPPED)
    except VlmTuneError as error:
        _complain(f"error: {error}", colour="red")
        sys.exit(1)
    except KeyboardInterrupt:
        _complain("stopped; run the same command again to go on from here")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Seed of the photos, the training order and the adapter.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("runs/demo"),
    quick: Annotated[bool, typer.Option(help="A third of the photos and one epoch: a smoke test.")] = False,
) -> None:
    """Run the whole recipe on the embedded model and synthetic photos: no key, no network, no GPU."""
    from vlm_tune.demo import run_demo

    _finish(run_demo(seed=seed, out=out, quick=quick))


@app.command()
def run(recipe: RecipePath) -> None:
    """Run a recipe from photos to report; what is finished is not done again."""
    from vlm_tune.recipe import Recipe

    _finish(Recipe.from_file(recipe).run(command=_typed("run", recipe)))


@app.command()
def check(
    recipe: RecipePath,
    browse: Annotated[Path | None, typer.Option(help="Write a page for browsing the photos: an HTML file.")] = None,
) -> None:
    """Look at the data and find leaks between training and test."""
    from vlm_tune.profiling import profile
    from vlm_tune.recipe import Recipe

    loaded = Recipe.from_file(recipe)
    for result in loaded.check():
        result.show()
    if browse:
        data = loaded.data.read(loaded.task)
        typer.echo(profile(data).browse(data, browse))


@app.command()
def plan(recipe: RecipePath) -> None:
    """Show what would be adapted, and the memory, time and dollars on this machine and on every GPU with a price."""
    from vlm_tune.recipe import Recipe

    loaded = Recipe.from_file(recipe)
    planned = loaded.trainer().plan(loaded.dataset().train)
    planned.show()
    planned.gpus.show()


@app.command()
def fit(recipe: RecipePath) -> None:
    """Do everything up to the trained adapter."""
    from vlm_tune.recipe import Recipe

    adapter = Recipe.from_file(recipe).fit()
    adapter.show()
    _say(adapter.path)


@app.command()
def evaluate(recipe: RecipePath, model: Annotated[str, typer.Argument(help="Hub id or folder.")]) -> None:
    """Evaluate one more open model on the recipe's test images."""
    from vlm_tune.evaluation import Evaluator
    from vlm_tune.recipe import Recipe
    from vlm_tune.vlm import VLM

    loaded = Recipe.from_file(recipe)
    evaluation = Evaluator(loaded.dataset().test, run_dir=loaded.run_dir).run(VLM(model))
    evaluation.show()
    _say(_processes.by_one(evaluation.save)(loaded.run_dir / "evaluations" / f"{evaluation.name}.parquet"))


@app.command()
def compare(
    candidate: Annotated[Path, typer.Argument(help="A saved evaluation (.parquet).")],
    reference: Annotated[Path, typer.Argument(help="A saved evaluation on the same images.")],
) -> None:
    """Compare two saved evaluations, image by image."""
    from vlm_tune.evaluation import Comparison, Evaluation

    Comparison(candidate=Evaluation.load(candidate), reference=Evaluation.load(reference)).show()


@app.command()
def report(
    evaluations: Annotated[list[Path], typer.Argument(help="Saved evaluations (.parquet), best last.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
) -> None:
    """Write a report from saved evaluations; the last is compared with each of the others."""
    from vlm_tune.evaluation import Comparison, Evaluation
    from vlm_tune.report import Report

    loaded = [Evaluation.load(path) for path in evaluations]
    comparisons = [Comparison(candidate=loaded[-1], reference=other) for other in loaded[:-1]]
    command = _typed("report", *evaluations, "--out", out)
    typer.echo(Report(loaded, sections=comparisons, command=command).save(out))


@app.command()
def doctor() -> None:
    """Print versions for a bug report, and what is missing or wrong on this machine; status 1 if something is wrong."""
    from vlm_tune.doctor import check_up
    from vlm_tune.versions import show_versions

    show_versions()
    found = check_up()
    found.show()
    if not found.ok:
        raise typer.Exit(1)


def _finish(result: object) -> None:
    from vlm_tune.recipe import Result

    if not isinstance(result, Result):
        raise TypeError(f"expected a Result, got {type(result).__name__}")
    result.show()
    _say(result.report)


def _typed(*arguments: str | Path) -> str:
    """Return the command line that says the same, as a shell takes it."""
    alone = _processes.world_size() == 1
    launcher = ["torchrun", "--nproc-per-node", str(_processes.local_world_size()), "-m", "vlm_tune"]
    return shlex.join([*(["vlm-tune"] if alone else launcher), *map(str, arguments)])


def _say(path: Path) -> None:
    if _processes.is_main():
        typer.echo(path)


def _complain(text: str, *, colour: str | None = None) -> None:
    if _processes.first_to_fail():
        typer.secho(text, fg=colour, err=True)
