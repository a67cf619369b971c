"""Reading Hugging Face `datasets`: in memory, streamed, from the hub, or from Parquet files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, Union

from vlm_tune.data.groups import finder, is_pattern, require_fit
from vlm_tune.data.hugging_face_columns import Columns, Plan
from vlm_tune.data.splitting import SPLITS, SplitName, parse_split
from vlm_tune.errors import DataError
from vlm_tune.records import Example
from vlm_tune.task import NONE

if TYPE_CHECKING:
    import datasets

__all__ = ["Found", "HfSource", "read_hf"]

_One: TypeAlias = Union[str, Path, "datasets.Dataset", "datasets.IterableDataset"]
HfSource: TypeAlias = _One | Mapping[str, _One]
"""A hub id, a path, a dataset; or for each split a dataset or a Parquet file."""

_BATCH = 256


@dataclass
class Found:
    """What was read.

    Attributes:
        examples: The examples, in order.
        splits: The split of each id that has one.
        classes: Names of the classes; None where the source has numbers only.
        multi_label: Whether a row may have several classes.
    """

    examples: list[Example] = field(default_factory=list)
    splits: dict[str, SplitName] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    multi_label: bool = False


class _Part(NamedTuple):
    split: SplitName | None
    prefix: str
    rows: Any
    roots: tuple[Path, ...] | None


def read_hf(source: HfSource, *, columns: Columns, limit: int | None) -> Found:
    """Read examples with their encoded images; `Dataset.from_hf` says how.

    Raises:
        DataError: The source cannot be reached or read, lacks a column, or a row has no image or no label.
    """
    if limit is not None and limit < 1:
        raise DataError(f"limit={limit} reads nothing; it should be at least 1")
    found = Found()
    with _reading(source):
        parts = _parts(source, limit)
        for part in parts:
            plan = Plan.of(part.rows, columns, where=part.prefix or "the dataset")
            found.classes, found.multi_label = plan.names, plan.several
            for example in _examples(part, plan, limit):
                found.examples.append(example)
                if part.split is not None:
                    found.splits[example.id] = part.split
    if not found.examples:
        raise DataError(f"{_name(source)} has no rows")
    if is_pattern(columns.group) and plan.group is None:
        require_fit(columns.group, found.examples)
    found.classes = found.classes or _classes([example.label for example in found.examples])
    return found


@contextmanager
def _reading(source: HfSource) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ValueError, DatasetsError, ArrowException) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        remote = isinstance(source, str) and not Path(source).exists()
        hint = "; or load it with datasets.load_dataset(), and pass what that returns" if remote else ""
        raise DataError(f"cannot read {_name(source)}: {reason}{hint}") from error


def _name(source: HfSource) -> str:
    return str(source) if isinstance(source, str | Path) else f"the {type(source).__name__}"


def _parts(source: HfSource, limit: int | None) -> list[_Part]:
    loaded, roots = _opened(source, limit)
    if not isinstance(loaded, Mapping):
        return [_Part(None, "", loaded, roots)]
    parts: dict[SplitName, _Part] = {}
    for name, rows in loaded.items():
        split = parse_split(str(name))
        rows, own_roots = _opened(rows, limit) if roots is None else (rows, roots)
        if isinstance(rows, Mapping):
            raise DataError(f"the split {str(name)!r} is itself a source with splits; name one Parquet file for it")
        if len(loaded) == 1:
            return [_Part(None, f"{split or name}/", rows, own_roots)]
        if split is None or split in parts:
            raise DataError(
                f"the source has the splits {', '.join(map(str, loaded))}, and {str(name)!r} is not one of "
                f'{", ".join(SPLITS)}, once each; pass those you want by name, as {{"train": ..., "test": ...}}'
            )
        parts[split] = _Part(split, f"{split}/", rows, own_roots)
    return list(parts.values())


def _opened(source: HfSource, limit: int | None) -> tuple[Any, tuple[Path, ...] | None]:
    """Return a source that is loaded, and the folders in which an image may lie that a file only names."""
    if isinstance(source, str | Path):
        return _load(source, streaming=limit is not None), _roots(source)
    return source, None


def _load(source: str | Path, *, streaming: bool) -> Any:
    import datasets

    path = Path(source)
    # Files on disk are always streamed: read once, where they are, instead of copied to a cache first.
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise DataError(f"{path} is not a Parquet file; tables of paths are read by Dataset.from_table")
        return datasets.load_dataset("parquet", data_files=[str(path)], streaming=True)["train"]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return datasets.load_from_disk(str(path))
    if path.is_dir():
        if not any(path.rglob("*.parquet")):
            raise DataError(f"{path} holds no Parquet file; folders of images are read by Dataset.from_folder")
        return datasets.load_dataset(str(path), streaming=True)
    if isinstance(source, Path) or source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise DataError(f"{source} is no file or folder, and no id on the hub (owner/name)")
    return datasets.load_dataset(source, streaming=streaming)


def _roots(source: str | Path) -> tuple[Path, ...]:
    import datasets
    from huggingface_hub import constants

    path = Path(source)
    if path.exists():
        return ((path if path.is_dir() else path.parent).resolve(),)
    return (Path(datasets.config.HF_DATASETS_CACHE).resolve(), Path(constants.HF_HUB_CACHE).resolve())


def _examples(part: _Part, plan: Plan, limit: int | None) -> Iterator[Example]:
    group_of = finder(plan.columns.group) if plan.group is None and is_pattern(plan.columns.group) else None
    rows = plan.undecoded(part.rows)
    number = 0
    for batch in (rows if limit is None else rows.take(limit)).iter(batch_size=_BATCH):
        for values in zip(*batch.values(), strict=True):
            row = dict(zip(batch, values, strict=True))
            where = f"{part.prefix}row {number}"
            image, file_name = _image(row[plan.image], part.roots, where=where)
            example_id = f"{part.prefix}{number}" if plan.id is None else row[plan.id]
            if example_id in (None, ""):
                raise DataError(f"{where}: column {plan.id!r}, which should hold the id, is empty")
            if group_of is None:
                group = None if plan.group is None else row[plan.group]
            else:
                group = group_of(file_name or str(example_id))
            yield Example(
                id=str(example_id),
                image=image,
                label=_label(row[plan.label], plan, where=where),
                group=None if group in (None, "") else str(group),
                metadata=plan.metadata(row),
            )
            number += 1


def _image(value: Any, roots: tuple[Path, ...] | None, *, where: str) -> tuple[Path | bytes, str]:
    """Return the encoded image, and the file name that came with it."""
    from PIL import Image

    if isinstance(value, bytes):
        return value, ""
    if isinstance(value, Image.Image):
        return _png(value), ""
    if not isinstance(value, Mapping) or (value.get("bytes") is None and not value.get("path")):
        raise DataError(f"{where} has no image; leave such rows out with the dataset's own filter()")
    name = str(value.get("path") or "")
    if value.get("bytes") is not None:
        return bytes(value["bytes"]), name
    return (_fetch(name, where=where) if "://" in name else _located(name, roots, where=where)), name


def _located(name: str, roots: tuple[Path, ...] | None, *, where: str) -> Path:
    if roots is None:
        return Path(name)
    for root in roots:
        image = os.path.normpath(root / name)
        if Path(image).is_relative_to(root) and Path(os.path.realpath(image)).is_relative_to(root):
            return Path(image)
    raise DataError(f"{where}: image {name!r} leaves {roots[0]}; a file may only name images beside it")


def _fetch(address: str, *, where: str) -> bytes:
    # A stream from the hub names its images; `datasets` would open them just so, but decode them too.
    import fsspec  # type: ignore[import-untyped]

    if not address.rpartition("::")[2].startswith("hf://"):
        raise DataError(f"{where}: image {address!r} is not on the hub; download it first")
    with fsspec.open(address, "rb") as file:
        data: bytes = file.read()
    return data


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", exif=image.getexif(), compress_level=1)
    return file.getvalue()


def _label(value: Any, plan: Plan, *, where: str) -> str:
    if plan.several:
        return ", ".join(_class(item, plan, where=where) for item in value or ()) or NONE
    return _class(value, plan, where=where)


def _class(value: Any, plan: Plan, *, where: str) -> str:
    if plan.names is not None and isinstance(value, int) and 0 <= value < len(plan.names):
        return plan.names[value]
    if plan.names is None and isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    raise DataError(f"{where}: {plan.label!r} holds {value!r:.80}, which is no class; leave out rows without a label")


def _classes(labels: Sequence[str]) -> tuple[str, ...] | None:
    classes = {item for label in labels for item in label.split(", ")} - {NONE}
    return None if all(name.isdecimal() for name in classes) else tuple(sorted(classes))
