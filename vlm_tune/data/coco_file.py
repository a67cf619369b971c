"""A COCO annotation file, checked: which photos it lists, and what is marked in each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_tune.errors import DataError

__all__ = ["CocoFile", "CocoPhoto", "Mark", "load_coco"]


@dataclass(frozen=True, slots=True)
class Mark:
    """One annotation.

    Attributes:
        category: Name of its category.
        area: Its area in pixels: as stated, or else that of its box; None where neither is there.
    """

    category: str
    area: float | None


@dataclass(frozen=True, slots=True)
class CocoPhoto:
    """One photo of the file.

    Attributes:
        file_name: Where it is, relative to the folder of the images.
        fields: What else the file says about it, its id as `image_id`.
        marks: Its annotations, in the order of the file.
    """

    file_name: str
    fields: Mapping[str, Any]
    marks: list[Mark] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CocoFile:
    """What a COCO file holds.

    Attributes:
        path: The file.
        categories: Names of its categories, those without annotations too.
        photos: Its photos, in order.
    """

    path: Path
    categories: tuple[str, ...]
    photos: tuple[CocoPhoto, ...]


def load_coco(path: Path | str) -> CocoFile:
    """Read a COCO detection or segmentation file; ids may have gaps, start anywhere and be text.

    Raises:
        DataError: The file is missing, truncated or not shaped like COCO, an id occurs twice, or an annotation
            names an image or category that the file does not list.
    """
    source = Path(path)
    content = _json(source)
    categories = {
        _id(entry, "id", where): _text(entry, "name", where) for where, entry in _entries(source, content, "categories")
    }
    photos: dict[int | str, CocoPhoto] = {}
    for where, entry in _entries(source, content, "images"):
        image_id = _id(entry, "id", where)
        if image_id in photos:
            raise DataError(f"{where}: the id {image_id!r} occurs twice")
        fields = {key: value for key, value in entry.items() if key not in ("id", "file_name")}
        photos[image_id] = CocoPhoto(_text(entry, "file_name", where), {**fields, "image_id": image_id})
    for where, entry in _entries(source, content, "annotations"):
        photo = photos.get(_id(entry, "image_id", where))
        category = categories.get(_id(entry, "category_id", where))
        if photo is None or category is None:
            name, key = ("image", "image_id") if photo is None else ("category", "category_id")
            raise DataError(f"{where}: {key} {entry[key]!r} names no {name} of the file; it may have been cut down")
        photo.marks.append(Mark(category, _area(entry, where)))
    return CocoFile(source, tuple(dict.fromkeys(categories.values())), tuple(photos.values()))


def _json(source: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(source.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{source} is not JSON, or was cut off: {error}") from error
    except RecursionError as error:
        raise DataError(f"{source} is not COCO: it is nested too deeply") from error
    if not isinstance(content, dict):
        raise DataError(f"{source} is not COCO: it holds {_kind(content)}, not an object with images and annotations")
    return content


def _entries(source: Path, content: Mapping[str, Any], key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the objects of a list, each with its place for errors."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DataError(f"{source} is not COCO: {key!r} should be a list, not {_kind(entries)}")
    for number, entry in enumerate(entries):
        where = f"{source}, {key}[{number}]"
        if not isinstance(entry, dict):
            raise DataError(f"{where} should be an object, not {_kind(entry)}")
        yield where, entry


def _id(entry: Mapping[str, Any], key: str, where: str) -> int | str:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataError(f"{where}: {key!r} should be a number or text, not {_kind(value)}")
    return value


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{where}: {key!r} should be text, not {_kind(value)}")
    return value


def _area(entry: Mapping[str, Any], where: str) -> float | None:
    area = entry.get("area")
    if area is None and isinstance(box := entry.get("bbox"), list) and len(box) == 4:
        sides = box[2:]
        area = sides[0] * sides[1] if all(_is_size(side) for side in sides) else math.nan
    if area is not None and not _is_size(area):
        raise DataError(f"{where}: its area, {area!r:.80}, is not a number of pixels")
    return area


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a yes or no", type(None): "nothing"}
    return names.get(type(value), repr(value)[:40])
