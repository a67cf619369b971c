"""Check what was built before it is published: the wheel holds the package and nothing else, and is described well.

    python -m build && python tools/check_wheel.py dist/

Prints one line; ends with status 1, and every fault on a line of its own, where something is wrong.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "vlm_tune"
MOST_ASSETS_MB = 10.0


def main(folder: Path) -> int:
    """Check the one wheel in a folder; return the exit status."""
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        print(f"{folder} holds {len(wheels)} wheels; build one into an empty folder", file=sys.stderr)
        return 1
    found = list(faults(wheels[0], source=ROOT / PACKAGE))
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        with zipfile.ZipFile(wheels[0]) as wheel:
            print(f"{wheels[0].name}: {len(wheel.namelist())} files, {wheels[0].stat().st_size / 1e6:.1f} MB, in order")
    return int(bool(found))


def faults(path: Path, *, source: Path) -> Iterator[str]:
    """Yield what is wrong with a wheel that was built from the package in `source`."""
    with zipfile.ZipFile(path) as wheel:
        sizes = {one.filename: one.file_size for one in wheel.infolist()}
        name, version, *_ = path.name.split("-")
        about = f"{name}-{version}.dist-info"
        inside = {name for name in sizes if name.startswith(f"{PACKAGE}/")}
        for other in sorted(sizes.keys() - inside):
            if not other.startswith(f"{about}/"):
                yield f"{other} is no part of the package"
        written = {f"{PACKAGE}/{one.relative_to(source).as_posix()}" for one in source.rglob("*") if is_source(one)}
        yield from (f"{one} is missing" for one in sorted(written - inside))
        yield from (f"{one} is not among the sources" for one in sorted(inside - written))
        assets_mb = sum(size for name, size in sizes.items() if name in inside and not name.endswith(".py")) / 1e6
        if assets_mb >= MOST_ASSETS_MB:
            yield f"{assets_mb:.1f} MB of assets; {MOST_ASSETS_MB:.0f} MB are the most"
        for needed in ("METADATA", "licenses/LICENSE", "entry_points.txt"):
            if f"{about}/{needed}" not in sizes:
                yield f"{about}/{needed} is missing"
        if f"{about}/METADATA" in sizes:
            yield from wrong_metadata(message_from_bytes(wheel.read(f"{about}/METADATA")), version)


def wrong_metadata(metadata: Message, version: str) -> Iterator[str]:
    """Yield what is missing from the description, or wrong in it."""
    if metadata["Version"] != version:
        yield f"the metadata says version {metadata['Version']}, the file name {version}"
    for field in ("Summary", "Author", "License-Expression", "Requires-Python", "Keywords"):
        if not metadata[field]:
            yield f"the metadata has no {field}"
    labels = {url.split(",")[0] for url in metadata.get_all("Project-URL", [])}
    for label in ("Homepage", "Documentation", "Source", "Issues", "Changelog"):
        if label not in labels:
            yield f"the metadata has no URL called {label}"
    for kind in ("Development Status", "Intended Audience", "Programming Language", "Topic", "Typing"):
        if not any(one.startswith(kind) for one in metadata.get_all("Classifier", [])):
            yield f"no classifier says {kind}"
    text = metadata.get_payload()
    for link in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", text if isinstance(text, str) else ""):
        yield f"the description's link to {link} leads nowhere on a package index"


def is_source(path: Path) -> bool:
    """Whether a path is a file of the package, and not one that Python keeps for itself."""
    return path.is_file() and "__pycache__" not in path.parts


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/check_wheel.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
