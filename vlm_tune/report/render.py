"""From blocks to one HTML document that loads nothing and runs nothing but its own script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from vlm_tune.report.blocks import Section
from vlm_tune.report.photos import Photos
from vlm_tune.report.words import FORMATS

__all__ = ["Page", "render"]

_SCRIPTS = ("script.js", "sorting.js", "browser.js")


@dataclass(frozen=True)
class Page:
    """Everything around and in a report, ready to be drawn."""

    title: str
    eyebrow: str
    """The size of the experiment in one line."""
    answer: str
    """The result in one sentence."""
    remarks: Sequence[str]
    """What else a reader in a hurry should know."""
    sections: Sequence[Section]
    colours: Mapping[int, str]
    """Number of each system to its colour."""
    version: str
    date: str
    json_name: str


def render(page: Page, photos: Photos) -> str:
    """Return the page as one HTML document.

    Everything that comes from data is escaped by the template. The content policy names the style and the
    script by their hashes, so that nothing else could run even if something did slip through.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    style = _asset("style.css") + "".join(
        f".c{number} {{ --c: {colour}; }}\n" for number, colour in page.colours.items()
    )
    script = "\n".join(map(_asset, _SCRIPTS))
    # Photos in the folder beside the page are its neighbours; without that folder nothing at all is loaded.
    beside = " 'self' file:" if photos.address else ""
    policy = (
        f"default-src 'none'; img-src data:{beside}; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=PackageLoader("vlm_tune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FORMATS)
    template = environment.get_template("page.html.j2")
    # Both are the package's own files, and the colours come from a fixed list.
    return template.render(
        page=page,
        photos=photos,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
    )


def _asset(name: str) -> str:
    return (files("vlm_tune.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
