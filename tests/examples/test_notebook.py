"""The notebook: its cells run in order, as a kernel would run them, and it is stored without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


def run_cell(code: str, names: dict[str, object]) -> object:
    """Run a cell and return the value of its last line, which a notebook shows."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, str(NOTEBOOK), "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names)  # noqa: S307


def test_it_has_the_form_of_a_notebook_and_no_outputs(notebook: dict[str, Any]) -> None:
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        expected = {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            expected |= {"outputs", "execution_count"}
        assert cell.keys() == expected


def test_its_cells_run_in_order(
    notebook: dict[str, Any], small_demo_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            code = "".join(cell["source"]).replace("PER_CLASS = 60", "PER_CLASS = 12")
            shown.append(run_cell(code.replace("demo.model_path()", repr(str(small_demo_model))), names))
    kinds = [type(value).__name__ for value in shown]
    assert kinds.count("Figure") == 2 and kinds.count("DataFrame") == 2 and "Dataset" in kinds
    assert (tmp_path / "runs/notebook/report.html").exists()
