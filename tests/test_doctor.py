"""The check-up: what is wrong is wrong, what is missing is a note, and no key is shown."""

from __future__ import annotations

import doctest
import os
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vlm_tune import cli, doctor
from vlm_tune.doctor import Checkup, Finding, check_up

DISKS = {"disk for runs", "disk for models"}


def levels(found: Checkup) -> dict[str, set[str]]:
    by: dict[str, set[str]] = {}
    for one in found.findings:
        by.setdefault(one.about, set()).add(one.level)
    return by


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in doctor.KEYS:
        monkeypatch.delenv(name, raising=False)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(doctor).failed == 0


def test_this_machine_is_fit_for_the_tests(tmp_path: Path, no_keys: None) -> None:
    found = check_up(tmp_path)
    assert found.ok, found
    assert {"accelerator", "number format", "packages", *DISKS} <= levels(found).keys()
    assert levels(found)["keys"] == {"note"}


def test_a_folder_that_is_not_there_yet_is_judged_by_the_one_above(tmp_path: Path) -> None:
    words = next(one.words for one in check_up(tmp_path / "a/b").findings if one.about == "disk for runs")
    assert words.split(" (")[0].split(";")[0].endswith(str(tmp_path))


@pytest.mark.parametrize(("free", "level"), [(1e9, "wrong"), (20e9, "note"), (900e9, "good")])
def test_a_disk_that_is_full_is_wrong(free: float, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert {name: levels(check_up())[name] for name in DISKS} == {name: {level} for name in DISKS}


def test_a_folder_that_cannot_be_written_to_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the answer is put into the system's mouth.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    found = levels(check_up(tmp_path))
    assert (found["disk for runs"], found["disk for models"] <= {"good", "note"}) == ({"wrong"}, True)


@pytest.mark.parametrize(("value", "level"), [("a-secret", "good"), ("", "wrong"), ("a-secret\n", "wrong")])
def test_a_key_is_judged_and_never_shown(
    value: str, level: str, no_keys: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", value)
    found = check_up()
    found.show()
    shown = capsys.readouterr().out
    [about] = [one for one in found.findings if "GEMINI_API_KEY" in one.words]
    assert about.level == level
    assert "a-secret" not in shown + found.model_dump_json() and "GEMINI_API_KEY" in shown


def test_packages_that_are_needed_and_missing_or_old_are_wrong() -> None:
    [fits] = doctor._requirements(["numpy>=1", "pillow", 'gone; extra == "ray"', 'gone; python_version < "3"'])
    assert fits.level == "good" and "all 2" in fits.words
    gone, old = doctor._requirements(["no-such-package>=3", "numpy>=999"])
    assert (gone.level, old.level) == ("wrong", "wrong")
    assert "no-such-package is not installed" in gone.words
    assert f"numpy {version('numpy')} is not >=999" in old.words


def test_an_extra_that_is_missing_is_a_note_with_the_pip_line() -> None:
    lines = ['numpy>=1; extra == "quant"', 'no-such-package; extra == "sweep"', 'numpy>=999; extra == "openai"']
    lines += ['no-such-package; extra == "dev"', "pillow"]
    by_name = {one.about: one for one in doctor._extras(lines)}
    assert {name: one.level for name, one in by_name.items()} == {
        "extra openai": "wrong",
        "extra quant": "good",
        "extra sweep": "note",
    }
    assert 'pip install "vlm-tune[sweep]"' in by_name["extra sweep"].words


def test_the_extras_are_those_of_the_package() -> None:
    import tomllib

    written = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert {*doctor.EXTRAS, "dev", "docs"} == written["project"]["optional-dependencies"].keys()


def test_a_known_bad_version_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(doctor._known_bad()) == []
    monkeypatch.setattr(doctor, "version", lambda name: "2.9.1+cu130")
    [bad] = doctor._known_bad()
    assert bad.level == "wrong" and "torch 2.9.1+cu130" in bad.words


def test_a_driver_that_torch_cannot_use_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert [one.level for one in doctor._accelerator()] == ["wrong", "good"]


def test_gpus_are_named_with_their_memory_and_their_number_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10e9, 24e9))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    first, second, form = doctor._accelerator()
    assert (first.words, second.words) == ("Card 0, 10 of 24 GB free", "Card 1, 10 of 24 GB free")
    assert form.level == "note" and "bfloat16" in form.words


@pytest.mark.parametrize("ok", [True, False])
def test_the_command_ends_with_status_one_where_something_is_wrong(
    ok: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = Finding(about="disk", level="note" if ok else "wrong", words="[1 GB] free")
    monkeypatch.setattr(doctor, "check_up", lambda: Checkup(findings=(finding,)))
    monkeypatch.setattr("sys.argv", ["vlm-tune", "doctor"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == (0 if ok else 1)
    shown = capsys.readouterr().out
    assert "transformers" in shown and "[1 GB] free" in shown
