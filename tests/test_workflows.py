"""The workflow files: YAML that GitHub takes, with least rights, whose jobs call commands and files that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SYSTEM = {"ls"}


def workflow(path: Path) -> dict[str, Any]:
    # YAML reads the key `on` as true.
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {"on" if key is True else key: value for key, value in found.items()}


def commands(path: Path) -> list[str]:
    """Every command of the file, lines and `&&` taken apart."""
    steps = [step for job in workflow(path)["jobs"].values() for step in job["steps"]]
    return [part.strip() for step in steps for part in re.split(r"&&|\n", step.get("run", "")) if part.strip()]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_there_is_one_for_tests_docs_and_publishing() -> None:
    assert [path.stem for path in FILES] == ["docs", "publish", "test"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEachWorkflow:
    def test_it_has_the_form_that_github_takes(self, path: Path) -> None:
        found = workflow(path)
        assert found.keys() <= {"name", "on", "permissions", "concurrency", "jobs"}
        assert (found["name"], found["permissions"]) == (path.stem, {"contents": "read"})
        jobs = found["jobs"]
        for job in jobs.values():
            assert job["runs-on"] == "ubuntu-latest" and 0 < job["timeout-minutes"] <= 60
            assert job.get("needs", next(iter(jobs))) in jobs
            assert all(("run" in step) != ("uses" in step) for step in job["steps"])

    def test_every_action_has_a_version(self, path: Path) -> None:
        steps = [step for job in workflow(path)["jobs"].values() for step in job["steps"]]
        for used in (step["uses"] for step in steps if "uses" in step):
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", used), used

    def test_the_commands_exist(self, path: Path) -> None:
        for command in commands(path):
            program, *words = shlex.split(command)
            if program == "make":
                assert words and set(words) <= make_targets(), command
            elif program == "pip":
                extras = re.findall(r"\.\[(\w+)\]", command)
                assert set(extras) <= PROJECT["optional-dependencies"].keys() and words[0] == "install", command
            elif program == "python":
                assert (ROOT / words[0]).is_file(), command
            else:
                assert program in SYSTEM, command


def test_only_the_jobs_that_publish_may_ask_for_an_identity() -> None:
    may = {
        (path.stem, name)
        for path in FILES
        for name, job in workflow(path)["jobs"].items()
        if "id-token" in job.get("permissions", {})
    }
    assert may == {("docs", "publish"), ("publish", "publish")}


def test_no_workflow_holds_a_secret() -> None:
    for path in FILES:
        assert "secrets." not in path.read_text(encoding="utf-8")


def test_the_tested_pythons_are_those_of_the_classifiers() -> None:
    tested = workflow(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == named
    assert PROJECT["requires-python"] == f">={tested[0]}"
