"""The page for browsing a dataset: one HTML file, and the thumbnails in a folder beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vlm_tune import images
from vlm_tune._files import atomic_directory, write_text
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError
from vlm_tune.profiling.reading import in_threads
from vlm_tune.profiling.result import ALL, Profile
from vlm_tune.profiling.tags import TAGS
from vlm_tune.records import Example

__all__ = ["write_page"]

_SCRIPTS = ("filter.js", "grid.js", "viewer.js", "controls.js")
_SIZE = 256
_MAX_VALUE = 200
_MAX_KEYS = 20


def write_page(profile: Profile, dataset: Dataset, path: Path) -> Path:
    """Write the thumbnails and then the page that shows them, and return the page's path.

    Args:
        profile: The dataset's profile.
        dataset: The photos.
        path: The HTML file to write.

    Raises:
        StorageError: Something cannot be written.
    """
    folder = path.with_name(f"{path.stem}_files")
    with atomic_directory(folder) as temporary:
        thumbnails = _write_thumbnails(dataset.examples, temporary)
    content = _content(profile, dataset, thumbnails=thumbnails, path=path)
    return write_text(path, _render(f"{profile.num_examples:,} photos", content))


def _write_thumbnails(examples: Sequence[Example], folder: Path) -> list[str | None]:
    """Write a thumbnail for each different photo; return each photo's, by name, or None where it is unreadable."""
    seen: dict[str, bool] = {}

    def write(example: Example) -> str | None:
        try:
            name = example.content_hash[:20]
            if name not in seen:
                seen[name] = False
                small = images.thumbnail(example.image, size=_SIZE)
                target = folder / name[:2] / f"{name}.jpg"
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(small)
                seen[name] = True
        except ImageError:
            return None
        return name

    names = list(in_threads(write, examples, title="Writing thumbnails"))
    return [name if name is not None and seen[name] else None for name in names]


def _content(profile: Profile, dataset: Dataset, *, thumbnails: list[str | None], path: Path) -> dict[str, Any]:
    """Return what the page's script shows: columns with a value for each photo, and the words for them."""
    photos = profile.photos
    labels = {label: place for place, label in enumerate(profile.counts[ALL])}
    members = {label: [labels[name] for name in dataset.task.members(label)] for label in set(photos.labels)}
    none = labels.get("none")
    splits = [name for name in profile.counts if name != ALL]
    places = {name: place for place, name in enumerate(photos.ids)}
    columns: dict[str, list[Any]] = {
        "id": list(photos.ids),
        "label": [members[label] or [none] for label in photos.labels],
        "split": [-1 if name is None else splits.index(name) for name in photos.splits],
        "thumbnail": list(thumbnails),
        "original": [_original(example, path) for example in dataset],
        "group": [example.group for example in dataset],
        "more": [list(_more(example)) for example in dataset],
        **{name: list(getattr(photos, name)) for name, _ in _QUANTITIES if hasattr(photos, name)},
        **{f"{family}_tokens": list(numbers) for family, numbers in photos.tokens.items()},
    }
    return {
        "folder": quote(f"{path.stem}_files"),
        "labels": list(labels),
        "splits": splits,
        "tags": [
            [tag.replace("_", " "), why, [places[name] for name in profile.tags[tag]]] for tag, why in TAGS.items()
        ],
        "copies": [[places[name] for name in group.ids] for group in profile.copies or ()],
        "reasons": {places[file.example_id]: file.reason for file in profile.unreadable},
        "quantities": [
            [name, words] for name, words in _QUANTITIES if any(v is not None for v in columns.get(name, ()))
        ],
        "photos": columns,
    }


_QUANTITIES = (
    ("width", "width"),
    ("height", "height"),
    ("num_bytes", "file size"),
    ("format", "format"),
    ("brightness", "brightness"),
    ("contrast", "contrast"),
    ("sharpness", "sharpness"),
    ("detail", "detail"),
    ("qwen3_vl_tokens", "Qwen3-VL tokens"),
    ("qwen2_5_vl_tokens", "Qwen2.5-VL tokens"),
    ("lfm2_vl_tokens", "LFM2-VL tokens"),
    ("gemma3_tokens", "Gemma 3 tokens"),
    ("gemma4_tokens", "Gemma 4 tokens"),
    ("internvl_tokens", "InternVL tokens"),
    ("vote_share", "vote share"),
    ("vote_margin", "vote margin"),
)
"""What was measured, and what the page calls it."""


def _original(example: Example, path: Path) -> str | None:
    """Return the photo's own file as seen from the page; None for bytes, and for what no browser shows."""
    if not isinstance(example.image, Path) or example.image.suffix.lower() in (".tif", ".tiff"):
        return None
    try:
        return quote(os.path.relpath(example.image, path.parent).replace(os.sep, "/"))
    except ValueError:  # another drive
        return None


def _more(example: Example) -> Iterator[tuple[str, str]]:
    for name, value in list(example.metadata.items())[:_MAX_KEYS]:
        yield name, str(value)[:_MAX_VALUE]


def _render(title: str, content: dict[str, Any]) -> str:
    r"""Return the page; what comes from the data is escaped, and nothing but its own script could run.

    Inside a script block only `<` can end it or begin another; as `\u003c` it is the same JSON without it.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    style, script = _asset("browse.css"), "\n".join(map(_asset, _SCRIPTS))
    policy = (
        f"default-src 'none'; img-src 'self' file:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(loader=PackageLoader("vlm_tune.profiling"), autoescape=True, undefined=StrictUndefined)
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return environment.get_template("browse.html.j2").render(
        title=title, policy=policy, style=Markup(style), script=Markup(script), content=Markup(text)
    )


def _asset(name: str) -> str:
    return (files("vlm_tune.profiling") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
