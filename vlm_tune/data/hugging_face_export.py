"""Writing a dataset as a Hugging Face `datasets` object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune._console import notice
from vlm_tune.data.splitting import SPLITS
from vlm_tune.errors import SplitError
from vlm_tune.records import Example
from vlm_tune.task import Task

if TYPE_CHECKING:
    import datasets

    from vlm_tune.data.dataset import Dataset

__all__ = ["export"]

_OWN = ("id", "image", "label", "group")


def export(dataset: Dataset) -> datasets.Dataset | datasets.DatasetDict:
    """Return the examples as one dataset, or as one for each split; `Dataset.to_hf` says how.

    Raises:
        SplitError: Some examples are in a split and others are not.
    """
    import datasets

    keys = dict.fromkeys(key for example in dataset for key in example.metadata)
    metadata = {key: kind for key in keys if (kind := _kind(key, dataset.examples)) is not None}
    features = datasets.Features(
        {
            "id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": _label_feature(dataset.task),
            "group": datasets.Value("string"),
            **metadata,
        }
    )
    if not dataset.splits:
        return datasets.Dataset.from_dict(_columns(dataset.examples, dataset.task, metadata), features=features)
    if loose := len(dataset) - len(dataset.splits):
        raise SplitError(f"{loose} of {len(dataset)} examples are in no split; leave them out with filter() first")
    parts = {
        name: [example for example in dataset if dataset.splits[example.id] == name]
        for name in SPLITS
        if dataset.has_split(name)
    }
    return datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(_columns(part, dataset.task, metadata), features=features)
            for name, part in parts.items()
        }
    )


def _label_feature(task: Task) -> Any:
    import datasets

    names = datasets.ClassLabel(names=list(task.classes))
    return datasets.List(names) if task.multi_label else names


def _columns(examples: Sequence[Example], task: Task, metadata: dict[str, Any]) -> dict[str, list[Any]]:
    number = {label: index for index, label in enumerate(task.classes)}
    members = [[number[label] for label in task.members(example.label)] for example in examples]
    return {
        "id": [example.id for example in examples],
        "image": [_image(example.image) for example in examples],
        "label": members if task.multi_label else [of[0] for of in members],
        "group": [example.group for example in examples],
        **{key: [example.metadata.get(key) for example in examples] for key in metadata},
    }


def _image(image: Path | bytes) -> dict[str, bytes | str | None]:
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    return {"bytes": None, "path": str(image)}


def _kind(key: str, examples: Sequence[Example]) -> Any:
    """Return the feature of a metadata key, or None where Arrow has no single type for its values."""
    import datasets
    import pyarrow as pa

    if key in _OWN:
        notice(f"to_hf: metadata {key!r} is left out, the column is taken")
        return None
    try:
        values = pa.array([example.metadata.get(key) for example in examples])
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        notice(f"to_hf: metadata {key!r} is left out, its values are of several kinds")
        return None
    return datasets.features.features.generate_from_arrow_type(values.type)
