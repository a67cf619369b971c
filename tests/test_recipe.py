"""Recipes: reading them, the whole run, and going on after it was killed."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path

import pytest

import vlm_tune as vt
from tests.drawn import draw_some
from tests.processes import Child, run
from tests.training.conftest import COLOURS, mixture
from vlm_tune import demo
from vlm_tune.errors import RecipeError
from vlm_tune.recipe import DataSource, Opponent, Recipe, Result
from vlm_tune.testing import FakeGeminiServer

YAML = """
task:
  prompt: What kind of damage does this photo show?
  classes: [crack, dent, scratch]
data: {folder: photos, test: 0.25}
model: Qwen/Qwen3-VL-8B-Instruct
train: {epochs: 1, learning_rate: 0.002}
run_dir: runs/damage
"""


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_a_file_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    recipe = Recipe.from_file(write(tmp_path, YAML))
    assert recipe.data.folder == tmp_path / "photos"
    assert recipe.run_dir == tmp_path / "runs/damage"
    assert recipe.model == "Qwen/Qwen3-VL-8B-Instruct"
    assert recipe.train.epochs == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", "not valid YAML"),
        ("- just a list", "should hold the fields"),
        (YAML.replace("run_dir", "run_dri"), "did you mean 'run_dir'"),
        (YAML.replace("epochs", "epoch"), "TrainConfig.epoch"),
        (YAML.replace("test: 0.25", "test: 25"), "data.test"),
        (YAML.replace("model: Qwen/Qwen3-VL-8B-Instruct\n", ""), "model"),
    ],
)
def test_a_malformed_file_names_the_field(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_file(write(tmp_path, text))


def test_a_saved_recipe_is_the_same_recipe_wherever_it_goes(tmp_path: Path) -> None:
    recipe = Recipe.from_file(write(tmp_path / "here", YAML))
    kept = recipe.save(recipe.run_dir / "recipe.json")
    assert Recipe.from_file(kept).model_dump() == _resolved(recipe).model_dump()
    assert str(tmp_path) not in kept.read_text()
    elsewhere = recipe.model_copy(update={"data": DataSource(folder=Path("/photos/of cars"))})
    assert Recipe.from_file(elsewhere.save(tmp_path / "other.json")).data.folder == Path("/photos/of cars")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Recipe.from_file(tmp_path / "there/runs/damage/recipe.json")
    assert moved.data.folder is not None
    assert moved.data.folder.resolve() == tmp_path / "there/photos"


def _resolved(recipe: Recipe) -> Recipe:
    """The recipe with the paths that its saved copy has, which go by way of the run's folder."""
    data = recipe.data.model_copy(update={"folder": recipe.run_dir / "../../photos"})
    return recipe.model_copy(update={"data": data})


def test_data_needs_exactly_one_source(tmp_path: Path) -> None:
    recipe = Recipe.from_file(write(tmp_path, YAML.replace("folder: photos", "seed: 1")))
    with pytest.raises(RecipeError, match="either folder or table"):
        recipe.check()


@pytest.fixture(scope="module")
def small_recipe(small_demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A recipe on 64 small photos that takes seconds; its accuracy means nothing."""
    root = tmp_path_factory.mktemp("recipe")
    draw_some(root / "photos", num_train=40, num_test=20, num_twins=2, side=64)
    return Recipe(
        task=demo.task(),
        data=DataSource(folder=root / "photos"),
        model=str(small_demo_model),
        run_dir=root / "run",
        train=vt.TrainConfig(epochs=1, learning_rate=2e-3),
        overfit=False,
    )


@pytest.fixture(scope="module")
def finished(small_recipe: Recipe) -> Result:
    return small_recipe.run()


def test_the_whole_recipe_leaves_report_model_and_numbers(small_recipe: Recipe, finished: Result) -> None:
    report = json.loads((small_recipe.run_dir / "report.json").read_text())
    assert report["schema_version"] == 1
    assert [row["name"] for row in report["evaluations"]] == [e.name for e in finished.evaluations]
    for row, evaluation in zip(report["evaluations"], finished.evaluations, strict=True):
        assert row["accuracy"]["value"] == evaluation.accuracy.value
        assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]
        assert row["accuracy"]["n"] == len(evaluation.truths)
    assert finished.report.read_text().startswith("<!doctype html>")
    assert vt.VLM(finished.merged).config.model_type == "qwen3_vl"


def test_the_command_of_the_report_does_it_again(small_recipe: Recipe, finished: Result) -> None:
    command = json.loads((small_recipe.run_dir / "report.json").read_text())["provenance"]["command"]
    program, *arguments = shlex.split(command, comments=True)
    assert (program, *arguments) == ("vlm-tune", "run", "recipe.json")
    assert "# in the folder of this report" in finished.report.read_text()
    # Nothing of it is done again: the same folder, with the same inputs.
    before = (small_recipe.run_dir / "merged/model.safetensors").stat().st_mtime_ns
    done = run("-m", "vlm_tune", *arguments, cwd=finished.report.parent)
    assert done.status == 0, done.err
    assert done.out.strip().endswith("report.html")
    assert (small_recipe.run_dir / "merged/model.safetensors").stat().st_mtime_ns == before
    # From the command line it is the command line.
    again = json.loads((small_recipe.run_dir / "report.json").read_text())["provenance"]["command"]
    assert again == "vlm-tune run recipe.json"


def test_the_systems_are_compared_each_with_each(small_recipe: Recipe, finished: Result) -> None:
    found = json.loads((small_recipe.run_dir / "report.json").read_text())
    assert found["matrix"]["systems"] == [evaluation.name for evaluation in finished.evaluations]
    assert len(found["matrix"]["cells"]) == 3
    page = finished.report.read_text()
    assert page.index('<p class="answer">') < page.index('id="against"') < page.index('id="matrix"')


def test_the_planted_leaks_are_regrouped(small_recipe: Recipe, finished: Result) -> None:
    assert len(finished.leakage.leaked_test_ids) == 2
    moved = set(finished.leakage.leaked_test_ids)
    assert moved <= set(small_recipe.dataset().train.ids)


def test_a_finished_recipe_is_not_done_again(small_recipe: Recipe, finished: Result) -> None:
    before = {p: p.stat().st_mtime_ns for p in (small_recipe.run_dir / "merged").iterdir()}
    again = small_recipe.run()
    assert {p: p.stat().st_mtime_ns for p in (small_recipe.run_dir / "merged").iterdir()} == before
    assert again.tuned.accuracy == finished.tuned.accuracy


@pytest.mark.parametrize("content", ['{"of": "another version"}', '{"cut off'])
def test_a_result_that_cannot_be_read_back_is_made_anew(
    small_recipe: Recipe, finished: Result, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    kept = small_recipe.run_dir / "leakage.json"
    before = kept.read_text()
    kept.write_text(content)
    _, leakage = small_recipe.check()
    assert leakage.leaked_test_ids == finished.leakage.leaked_test_ids
    assert kept.read_text() == before
    assert "leakage: done anew, because" in capsys.readouterr().err


def test_an_opponent_without_a_key_is_left_out_with_a_line(
    small_recipe: Recipe,
    finished: Result,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    recipe = small_recipe.model_copy(update={"opponents": (Opponent(gemini="gemini-3-flash-preview"),)})
    result = recipe.run()
    assert [e.name for e in result.evaluations] == [e.name for e in finished.evaluations]
    assert "GEMINI_API_KEY" in capsys.readouterr().err


def test_an_opponent_is_evaluated_and_compared(
    small_recipe: Recipe, finished: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    with FakeGeminiServer("dent") as server:
        opponent = Opponent(gemini="gemini-3-flash-preview", base_url=server.url)
        result = small_recipe.model_copy(update={"opponents": (opponent,)}).run()
    assert len(result.evaluations) == len(finished.evaluations) + 1
    assert len(result.comparisons) == 2


def test_a_killed_run_goes_on(small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = small_recipe.model_copy(update={"run_dir": tmp_path / "run"})
    path = tmp_path / "recipe.json"
    path.write_text(recipe.model_dump_json())
    code = (
        "import sys, pathlib; from vlm_tune.recipe import Recipe\n"
        "Recipe.model_validate_json(pathlib.Path(sys.argv[1]).read_text()).run()"
    )
    process = Child("-c", code, path)
    journals = tmp_path / "run/predictions"
    deadline = time.monotonic() + 120
    while not list(journals.glob("*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert recipe.run().report.exists()


def test_a_recipe_of_several_classes_runs_to_its_report(small_demo_model: Path, tmp_path: Path) -> None:
    task = vt.Task(prompt="Which colours are in it?", classes=COLOURS, multi_label=True)
    lines = ["image,label"]
    for number, label in enumerate(task.answers * 3):
        (tmp_path / f"{number}.png").write_bytes(mixture(task.members(label), number))
        lines.append(f'{number}.png,"{label}"')
    (tmp_path / "photos.csv").write_text("\n".join(lines))
    result = Recipe(
        task=task,
        data=DataSource(table=tmp_path / "photos.csv", validation=0.3, test=0.3),
        model=str(small_demo_model),
        run_dir=tmp_path / "run",
        train=vt.TrainConfig(epochs=1, learning_rate=2e-3, keep="best"),
        overfit=False,
    ).run()
    assert all(evaluation.multi_label for evaluation in result.evaluations)
    assert "Exact match" in result.report.read_text()
    log = vt.Adapter.load(tmp_path / "run" / "adapter").training
    assert [one.accuracy.n for one in log.validation] == [7]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["confusion"] for row in report["evaluations"]] == [None] * 3
    assert report["evaluations"][2]["micro_f1"]["value"] == result.tuned.micro_f1.value
