"""The review sheet: one HTML file that works offline, and the same photos as CSV."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import images
from vlm_tune._console import progress
from vlm_tune._files import write_text
from vlm_tune.audit.rulings import COLUMNS, Sheet, cell, stamp
from vlm_tune.errors import ImageError

if TYPE_CHECKING:
    from vlm_tune.audit.audit import LabelAudit

__all__ = ["write_page"]

_SIZE = 480


def write_page(audit: LabelAudit, sheet: Sheet, path: Path) -> Path:
    """Write the page, and the CSV with the same name beside it; return the page's path.

    Raises:
        StorageError: A file cannot be written.
    """
    write_text(path.with_suffix(".csv"), _csv(audit, sheet))
    return write_text(path, _render(audit, sheet, path.with_suffix(".csv").name))


def _csv(audit: LabelAudit, sheet: Sheet) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(name), cell(audit[name].label), "", "", "", stamp(sheet)] for name in sheet.order)
    return file.getvalue()


def _render(audit: LabelAudit, sheet: Sheet, csv_name: str) -> str:
    r"""Return the page; what comes from the data is escaped, and nothing but its own script could run.

    Inside a script block only `<` can end it or begin another; as `\u003c` it is the same JSON without it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    style, script = _asset("sheet.css"), _asset("sheet.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    content = json.dumps(_content(audit, sheet), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    environment = Environment(loader=PackageLoader("vlm_tune.audit"), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("sheet.html.j2").render(
        num_photos=len(sheet.order),
        prompt=audit.task.prompt if audit.task.prompt != "?" else "",
        csv_name=csv_name,
        policy=policy,
        style=Markup(style),
        script=Markup(script),
        content=Markup(content),
    )


def _content(audit: LabelAudit, sheet: Sheet) -> dict[str, Any]:
    """Return what the page's script shows; which photos are controls is not in it."""
    photos = []
    with progress("Reading photos", total=len(sheet.order)) as bar:
        for name in sheet.order:
            one = audit[name]
            photos.append(
                {
                    "id": name,
                    "label": one.label,
                    "photo": _photo(audit, name),
                    "said": [[who, answer, one.probabilities.get(who)] for who, answer in one.answers.items()],
                    "near": list(map(list, one.neighbours.items())),
                    "copies": sorted(set(one.copies.values())),
                }
            )
            bar.advance()
    return {
        "sheet": stamp(sheet),
        "columns": COLUMNS,
        "classes": audit.task.classes,
        "several": audit.task.multi_label,
        "descriptions": dict(audit.task.descriptions),
        "photos": photos,
    }


def _photo(audit: LabelAudit, example_id: str) -> str | None:
    image = audit.images.get(example_id)
    if not image:
        return None
    try:
        return images.data_uri(images.thumbnail(image, size=_SIZE), "image/jpeg")
    except ImageError:
        # A photo that has moved since is no reason to have no sheet; the page says that it is missing.
        return None


def _asset(name: str) -> str:
    return (files("vlm_tune.audit") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
