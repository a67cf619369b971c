"""The model card of a folder this library writes: `README.md`, with the front matter that the Hub reads."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from vlm_tune import _files

__all__ = ["CARD_FILE", "base_model_of", "rows", "write_card"]

CARD_FILE = "README.md"
"""The card's name in a model folder."""

_TAG = "vlm-tune"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(
    folder: Path,
    name: str,
    *,
    base_model: str | None,
    relation: Literal["finetune", "quantized"],
    tags: Sequence[str],
    sections: Mapping[str, str],
) -> Path:
    """Write a card and return its path.

    Args:
        folder: The model's folder.
        name: What the model is called.
        base_model: Hugging Face id of the model it was made of; None where that is not known, or only a local path.
        relation: What it is to that model.
        tags: Words to find it by.
        sections: Heading to Markdown, in order.

    Raises:
        StorageError: The disk is full.
    """
    from huggingface_hub import ModelCardData

    about = ModelCardData(
        base_model=base_model,
        base_model_relation=relation if base_model else None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=[_TAG, *tags],
    )
    parts = [f"---\n{about.to_yaml()}\n---", f"# {plain(name)}"]
    parts += [f"## {heading}\n\n{text}" for heading, text in sections.items()]
    return _files.write_text(folder / CARD_FILE, "\n\n".join(parts) + "\n")


def base_model_of(folder: Path) -> str | None:
    """Return the Hugging Face id that a card of this library names as a folder's base; None where there is none."""
    import yaml

    try:
        text = (folder / CARD_FILE).read_text(encoding="utf-8")
        front = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
        about = yaml.safe_load(front[1]) if front else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    # The card of somebody else's model names what that was made of.
    if not isinstance(about, dict) or _TAG not in (about.get("tags") or ()):
        return None
    found = about.get("base_model")
    return found if isinstance(found, str) and _HUB_ID.fullmatch(found) else None


def rows(pairs: Mapping[str, str]) -> str:
    """Return pairs as a Markdown table of two columns."""
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {plain(value)} |" for key, value in pairs.items())])


def plain(text: str) -> str:
    """Return text that Markdown shows as it is inside a heading or a cell of a table."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", r"\|")
