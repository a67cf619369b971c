"""The last look before publishing finds what does not belong, what is missing and what is not said."""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tools import check_wheel

ABOUT = "vlm_tune-1.2.dist-info"
METADATA = """Metadata-Version: 2.4
Name: vlm-tune
Version: 1.2
Summary: One line
Author: Somebody
License-Expression: Apache-2.0
Requires-Python: >=3.11
Keywords: one
Project-URL: Homepage, https://a
Project-URL: Documentation, https://a
Project-URL: Source, https://a
Project-URL: Issues, https://a
Project-URL: Changelog, https://a
Classifier: Development Status :: 3 - Alpha
Classifier: Intended Audience :: Developers
Classifier: Programming Language :: Python :: 3
Classifier: Topic :: Scientific/Engineering
Classifier: Typing :: Typed
Description-Content-Type: text/markdown

See [the guide](https://a/guide.md) and [below](#below).
"""
GOOD = {
    "vlm_tune/__init__.py": "",
    "vlm_tune/py.typed": "",
    f"{ABOUT}/METADATA": METADATA,
    f"{ABOUT}/RECORD": "",
    f"{ABOUT}/entry_points.txt": "",
    f"{ABOUT}/licenses/LICENSE": "",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A package of two files, and a cache that does not count."""
    package = tmp_path / "vlm_tune"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "py.typed", "__pycache__/a.pyc"):
        (package / name).touch()
    return package


def found(source: Path, files: Mapping[str, str]) -> list[str]:
    path = source.parent / "vlm_tune-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return list(check_wheel.faults(path, source=source))


def test_a_wheel_in_order(source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(source, GOOD) == []
    monkeypatch.setattr(check_wheel, "ROOT", source.parent)
    assert check_wheel.main(source.parent) == 0
    assert "6 files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"tests/test_door.py": ""}, "tests/test_door.py is no part of the package"),
        ({"vlm_tune/__pycache__/a.pyc": ""}, "vlm_tune/__pycache__/a.pyc is not among the sources"),
        ({"vlm_tune/py.typed": "x" * 10_000_000}, "10.0 MB of assets; 10 MB are the most"),
        ({f"{ABOUT}/METADATA": METADATA.replace("1.2", "1.3")}, "the metadata says version 1.3, the file name 1.2"),
        ({f"{ABOUT}/METADATA": METADATA.replace("Summary", "Dummy")}, "the metadata has no Summary"),
        ({f"{ABOUT}/METADATA": METADATA.replace("URL: Issues", "URL: Bugs")}, "the metadata has no URL called Issues"),
        ({f"{ABOUT}/METADATA": METADATA.replace("Typing ::", "Topic ::")}, "no classifier says Typing"),
        (
            {f"{ABOUT}/METADATA": METADATA.replace("https://a/guide.md", "docs/guide.md")},
            "the description's link to docs/guide.md leads nowhere on a package index",
        ),
    ],
)
def test_one_fault(more: dict[str, str], fault: str, source: Path) -> None:
    assert found(source, {**GOOD, **more}) == [fault]


@pytest.mark.parametrize("name", ["vlm_tune/py.typed", f"{ABOUT}/licenses/LICENSE", f"{ABOUT}/METADATA"])
def test_what_is_missing(name: str, source: Path) -> None:
    assert found(source, {key: text for key, text in GOOD.items() if key != name}) == [f"{name} is missing"]


def test_two_wheels_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a-1.whl", "a-2.whl"):
        (tmp_path / name).touch()
    assert check_wheel.main(tmp_path) == 1
    assert "holds 2 wheels" in capsys.readouterr().err


def test_links_of_the_readme_lead_somewhere_from_the_package_index() -> None:
    """The two patterns that the build applies to the README."""
    import re

    root = check_wheel.ROOT
    hook = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["metadata"]["hooks"]
    text = (root / "README.md").read_text(encoding="utf-8")
    for one in hook["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links and all(link.startswith(("https://", "#")) for link in links)
    base = r"https://(?:github\.com|raw\.githubusercontent\.com)/vlm-tune/vlm-tune/(?:blob/)?main/([^#]+)"
    ours = [found[1] for link in links if (found := re.match(base, link))]
    assert ours and all((root / path).exists() for path in ours)
