"""What the documentation lists is what there is: errors, layers, plots, commands, files and extras."""

from __future__ import annotations

import inspect
import itertools
import re
import shlex
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from tests.families.architectures import published
from vlm_tune import errors
from vlm_tune.families import FAMILIES, linear_names

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PUBLISHED = {
    "qwen3_vl": "qwen3_vl_8b",
    "qwen2_5_vl": "qwen2_5_vl_7b",
    "lfm2_vl": "lfm2_vl_3b",
    "smolvlm": "smolvlm2_2b",
    "gemma3": "gemma3_4b",
    "gemma4": "gemma4",
    "internvl": "internvl3_8b",
}
"""A model of each family whose layers the page must list."""


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def bash_lines() -> list[tuple[str, str]]:
    """Every command line of the documentation, with its page."""
    return [
        (path.name, line)
        for path in PAGES
        for block in re.findall(r"^```bash\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


def test_every_error_has_an_entry_and_every_entry_an_error() -> None:
    raised = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.VlmTuneError) and value is not errors.VlmTuneError
    }
    page = read("errors.md")
    assert set(re.findall(r"^## (\w+Error)$", page, re.MULTILINE)) == raised
    assert page.count("**Usual cause.**") == page.count("**What to do.**") == len(raised)


def listed_layers() -> dict[str, dict[tuple[str, str], set[str]]]:
    """The table of the page on LoRA: family, part, names with `*` for a number."""
    found: dict[str, dict[tuple[str, str], set[str]]] = defaultdict(dict)
    family = ""
    for name, part, cell in re.findall(
        r"^\| (`\w+`)? ?\| (\w+(?: \w+)?) \| (`model.*`) \|$", read("concepts/lora.md"), re.M
    ):
        family = name.strip("`") or family
        region, _, kind = part.partition(" ")
        names = set()
        for pattern in re.findall(r"`([^`]+)`", cell):
            pieces = [piece.split(",") for piece in re.split(r"[{}]", pattern)]
            names |= {"".join(chosen) for chosen in itertools.product(*pieces)}
        found[family][region, kind or "attention"] = names
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_the_layers_listed_are_those_of_the_models(name: str) -> None:
    family = FAMILIES[name]
    coverage = family.modules(linear_names(published(PUBLISHED[name])), family.regions, family.kinds)
    # A number inside a name is a block's; the projector of Qwen2.5-VL has two layers without another name.
    there = {
        part: {re.sub(r"\.\d+(?=\.)", ".*", module) for module in found.hit if found.complete}
        for part, found in coverage.items()
    }
    assert listed_layers()[name] == there


def gallery() -> object:
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import gallery as module
    finally:
        sys.path.pop(0)
    return module


def test_the_gallery_shows_every_picture_that_is_drawn() -> None:
    shown = re.findall(r"assets/gallery/(\w+)\.png", read("gallery.md"))
    assert sorted(shown) == sorted(gallery().PICTURES)  # type: ignore[attr-defined]


def test_every_plot_is_in_the_gallery() -> None:
    page, script = read("gallery.md"), (ROOT / "tools/gallery.py").read_text(encoding="utf-8")
    drawing = {
        name
        for path in (ROOT / "vlm_tune/plots").glob("*.py")
        if path.stem not in ("__init__", "style")
        for name in re.findall(r"^def ([a-z]\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    reached = {name for name in drawing if f"plots.{name}(" in page + script or used_by_a_plot_method(name)}
    assert drawing - reached == set()
    methods = {
        name
        for path in (ROOT / "vlm_tune").rglob("*.py")
        for name in re.findall(r"^    def (plot\w*)\(self", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {name for name in methods if f".{name}(" not in page} == set()


def used_by_a_plot_method(name: str) -> bool:
    """Whether something with a `plot` method draws with this function."""
    return any(
        re.search(rf"\b{name}\(", text)
        for path in (ROOT / "vlm_tune").rglob("*.py")
        if "plots" not in path.parts and "report" not in path.parts
        for text in [path.read_text(encoding="utf-8")]
    )


def test_every_public_name_has_an_entry_in_the_reference() -> None:
    import vlm_tune

    text = "\n".join(
        path.read_text(encoding="utf-8") for path in [*(DOCS / "reference").glob("*.md"), DOCS / "errors.md"]
    )
    entries = set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))
    named = {entry.rpartition(".")[2] for entry in entries}
    things = {name: getattr(vlm_tune, name) for name in vlm_tune.__all__ if not name.startswith("__")}
    assert {
        name
        for name, thing in things.items()
        if not inspect.ismodule(thing) and name not in named and thing.__module__ not in entries
    } == set()


def test_commands_and_options_exist() -> None:
    import typer

    from vlm_tune.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    asked = 0
    for page, line in bash_lines():
        for _, said in re.findall(r"(^|&& |-m )(vlm[-_]tune [a-z].*?)(?= +#|$)", line):
            words = shlex.split(said.split(" | ")[0])[1:]
            assert words[0] in commands, f"{page}: {line}"
            options = {option for parameter in commands[words[0]].params for option in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options | {"--help"}, f"{page}: {line}"
            asked += 1
    assert asked >= 8


def test_files_and_extras_that_commands_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for page, line in bash_lines():
        for path in re.findall(r"\b(?:examples|benchmarks|tools)/[\w./]+\w", line):
            assert (ROOT / path).exists(), f"{page}: {line}"
        for names in re.findall(r"(?:vlm-tune|\.)\[([\w,]+)\]", line):
            assert set(names.split(",")) <= set(extras), f"{page}: {line}"


def test_links_into_the_repository_exist() -> None:
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"github\.com/vlm-tune/vlm-tune/blob/main/([\w./-]+)", text):
            assert (ROOT / target).exists(), f"{path.name}: {target}"
        for anchor in re.findall(r"benchmarks/RESULTS\.md#([\w-]+)", text):
            headings = re.findall(r"^#+ (.*)$", (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8"), re.M)
            known = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in known, f"{path.name}: {anchor}"


def test_the_recipe_shown_is_one(tmp_path: Path) -> None:
    from vlm_tune import Recipe

    (shown,) = re.findall(r"^```yaml\n(.*?)^```", read("guides/recipe.md"), re.MULTILINE | re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(shown, encoding="utf-8")
    recipe = Recipe.from_file(tmp_path / "recipe.yaml")
    assert recipe.task.classes == ("crack", "dent", "scratch")
    assert recipe.train.num_steps(319) == 240
