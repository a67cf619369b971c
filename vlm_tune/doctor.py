"""`vlm-tune doctor`: what is missing or wrong on this machine, and what to do about it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import Requirement

from vlm_tune.records import Record

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Checkup", "Finding", "check_up"]

Level = Literal["good", "note", "wrong"]
_STYLES: dict[Level, str] = {"good": "green", "note": "yellow", "wrong": "bold red"}

KNOWN_BAD = {
    "torch==2.9.*": "images take ten times as long and more: its convolution in three dimensions is slow",
}
"""Versions that install, and that nobody should use; each with the reason."""

EXTRAS = ("openai", "quant", "ray", "sweep")
"""Extras for users; the others are for work on the library itself."""

KEYS = {
    "GEMINI_API_KEY": "vt.Gemini",
    "OPENAI_API_KEY": "vt.OpenAICompatible at api.openai.com",
    "HF_TOKEN": "models and datasets of the hub that ask for a login",
}
"""Variables of the environment that are looked for, and what needs each. Their values are never shown."""

_FULL_GB, _TIGHT_GB = 2.0, 50.0


class Finding(Record):
    """One thing that was looked at.

    Examples:
        >>> Finding(about="disk", level="note", words="12 GB are free").level
        'note'
    """

    about: str
    """What was looked at."""
    level: Level
    """`good`; `note`, where something cannot be done here; `wrong`, where something will fail or mislead."""
    words: str
    """What was found, and the next step."""


class Checkup(Record):
    """What `check_up` found.

    Examples:
        >>> Checkup(findings=(Finding(about="keys", level="note", words="GEMINI_API_KEY is not set"),)).ok
        True
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return all(finding.level != "wrong" for finding in self.findings)

    def _rich(self) -> RenderableType:
        """Draw a line for each finding."""
        from rich.table import Table
        from rich.text import Text

        table = Table("", "what", "found", title="vlm-tune: check-up", title_justify="left")
        for one in self.findings:
            table.add_row(Text(one.level, style=_STYLES[one.level]), one.about, one.words)
        return table


def check_up(folder: Path | str = ".") -> Checkup:
    """Look at accelerator, number format, disk, keys, extras and versions. Nothing is sent, and no key is shown.

    Args:
        folder: Where runs will be written.

    Examples:
        >>> check_up().findings[0].about
        'accelerator'
    """
    lines = requires("vlm-tune") or ()
    return Checkup(
        findings=(
            *_accelerator(),
            *_disks(Path(folder)),
            *_keys(os.environ),
            *_requirements(lines),
            *_extras(lines),
            *_known_bad(),
        )
    )


def _accelerator() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
            words = (
                f"there is an NVIDIA driver that torch cannot use: it {built}; take another from https://pytorch.org"
            )
            yield Finding(about="accelerator", level="wrong", words=words)
        else:
            words = "no CUDA device: the demo and API calls run here, a model of billions of parameters does not"
            yield Finding(about="accelerator", level="note", words=words)
        yield Finding(about="number format", level="good", words="float32, as always on a CPU")
        return
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        words = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free"
        yield Finding(about="accelerator", level="good", words=words)
    if torch.cuda.is_bf16_supported(including_emulation=False):
        yield Finding(about="number format", level="good", words="bfloat16")
    else:
        words = 'this GPU has no bfloat16: give the model another format, such as vt.VLM(..., dtype="float32")'
        yield Finding(about="number format", level="note", words=words)


def _disks(folder: Path) -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for about, place in (("disk for runs", folder), ("disk for models", Path(HF_HUB_CACHE))):
        there = place.absolute()
        while not there.exists():
            there = there.parent
        free_gb = shutil.disk_usage(there).free / 1e9
        words = f"{free_gb:.0f} GB free at {there}"
        if not os.access(there, os.W_OK):
            yield Finding(about=about, level="wrong", words=f"{there} cannot be written to; choose another folder")
        elif free_gb < _FULL_GB:
            yield Finding(about=about, level="wrong", words=f"{words}: make room before anything is run")
        elif free_gb < _TIGHT_GB:
            note = f"{words}; a model of eight billion parameters takes 18 GB, and as much again once it is merged"
            yield Finding(about=about, level="note", words=note)
        else:
            yield Finding(about=about, level="good", words=words)


def _keys(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name, user in KEYS.items():
        value = environment.get(name)
        if value is None:
            yield Finding(about="keys", level="note", words=f"{name} is not set: it is for {user}")
        elif not value.strip() or value != value.strip():
            yield Finding(about="keys", level="wrong", words=f"{name} is empty or has blanks around it; set it again")
        else:
            yield Finding(about="keys", level="good", words=f"{name} is set")


def _requirements(lines: Iterable[str]) -> Iterator[Finding]:
    """Whether every package that is always needed is there in a version that fits."""
    needed = [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})]
    unmet = [words for one in needed if (words := _unmet(one))]
    for words in unmet:
        yield Finding(about="packages", level="wrong", words=f"{words}; run: pip install --upgrade vlm-tune")
    if not unmet:
        yield Finding(about="packages", level="good", words=f"all {len(needed)} that are needed, in versions that fit")


def _extras(lines: Iterable[str]) -> Iterator[Finding]:
    """Whether what each extra brings is there."""
    optional = [one for one in map(Requirement, lines) if one.marker and not one.marker.evaluate({"extra": ""})]
    for extra in EXTRAS:
        needed = [one for one in optional if one.marker and one.marker.evaluate({"extra": extra})]
        about, install = f"extra {extra}", f'pip install "vlm-tune[{extra}]"'
        missing = [one.name for one in needed if _installed(one.name) is None]
        unmet = [words for one in needed if (words := _unmet(one))]
        if missing:
            yield Finding(about=about, level="note", words=f"{', '.join(missing)} not installed: {install}")
        elif unmet:
            yield Finding(about=about, level="wrong", words=f"{'; '.join(unmet)}; run: {install}")
        elif needed:
            yield Finding(about=about, level="good", words=", ".join(one.name for one in needed))


def _known_bad() -> Iterator[Finding]:
    for line, reason in KNOWN_BAD.items():
        one = Requirement(line)
        found = _installed(one.name)
        if found is not None and one.specifier.contains(found, prereleases=True):
            yield Finding(about="known bad", level="wrong", words=f"{one.name} {found}: {reason}; install another")


def _unmet(one: Requirement) -> str | None:
    """What is wrong with a package that is asked for; None if it is there and fits."""
    found = _installed(one.name)
    if found is None:
        return f"{one.name} is not installed"
    if not one.specifier.contains(found, prereleases=True):
        return f"{one.name} {found} is not {one.specifier}"
    return None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
