"""From a dataset to its profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from vlm_tune import _processes, images
from vlm_tune.data import SPLITS, Dataset
from vlm_tune.data.splitting import nested_order
from vlm_tune.embedding import Embedder
from vlm_tune.families import FAMILIES
from vlm_tune.images.pixels import fitting_size
from vlm_tune.profiling.copies import copy_groups
from vlm_tune.profiling.measures import Measures
from vlm_tune.profiling.reading import measure_all
from vlm_tune.profiling.records import ImageTokens, Measured, Quantiles, Sample
from vlm_tune.profiling.result import ALL, NUM_SAMPLES, SAMPLE_SIZE, Profile
from vlm_tune.profiling.tags import tags_of
from vlm_tune.task import NONE, Task

__all__ = ["profile"]


@_processes.by_one
def profile(
    dataset: Dataset, *, duplicates: bool = True, embedder: Embedder | None = None, cache_dir: Path | str | None = None
) -> Profile:
    """Count, measure and fully decode every photo of a dataset, and find the copies among them.

    A file that does not decode is listed in the result, not raised. Photos are decoded in threads; a bar on
    stderr shows the progress.

    Args:
        dataset: The photos.
        duplicates: Look for photos that are copies of each other; most of the time goes there.
        embedder: What makes the shortlist of likely copies, as for `LeakageChecker`.
        cache_dir: Where the embeddings are kept, for the next profile or leak check.

    Examples:
        >>> from vlm_tune.images import blank
        >>> from vlm_tune.records import Example
        >>> task = Task(prompt="Which one?", classes=("crack", "dent"))
        >>> photos = [Example(id=f"{i}", image=blank(8, 8), label=task.classes[i % 2]) for i in range(4)]
        >>> found = profile(Dataset(photos, task=task), duplicates=False)
        >>> found.imbalance, found.tags["empty"]
        (1.0, ('0', '1', '2', '3'))
    """
    measures, broken = measure_all(dataset.examples)
    copies = None
    if duplicates:
        readable = [example for example in dataset if example.id in measures]
        folder = None if cache_dir is None else Path(cache_dir)
        copies = copy_groups(readable, dataset.splits, embedder=embedder, cache_dir=folder)
    counts = _counts(dataset)
    filled = [number for number in counts[ALL].values() if number]
    found = list(measures.values())
    columns = _columns(dataset, measures)
    return Profile(
        dataset_fingerprint=dataset.fingerprint,
        classes=dataset.task.classes,
        counts=counts,
        sizes={**Counter(dataset.splits.values()), ALL: len(dataset)},
        num_examples=len(dataset),
        num_groups=len({example.group for example in dataset if example.group is not None}),
        imbalance=max(filled) / min(filled),
        width=Quantiles.of([photo.width for photo in found]) if found else None,
        height=Quantiles.of([photo.height for photo in found]) if found else None,
        num_shrunk=sum(photo.width * photo.height > dataset.task.max_pixels for photo in found),
        formats=dict(Counter(photo.format for photo in found).most_common()),
        image_tokens={name: _spent(tokens, len(found)) for name, tokens in columns.tokens.items()},
        unreadable=tuple(broken),
        copies=copies,
        tags=tags_of(dataset.examples, measures, copies or ()),
        photos=columns,
        samples=tuple(_samples(dataset, readable=measures)),
    )


def _counts(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Return split to class to number of photos; a photo of a multi-label task counts for each of its classes."""
    members = {label: dataset.task.members(label) or (NONE,) for label in set(dataset.labels)}
    counts: dict[str, Counter[str]] = {name: Counter() for name in SPLITS if dataset.has_split(name)}
    counts[ALL] = Counter()
    for example in dataset:
        counts[ALL].update(members[example.label])
        if split := dataset.splits.get(example.id):
            counts[split].update(members[example.label])
    # That nothing applies is no class, but photos of it are there to be counted.
    rows = dict.fromkeys((*dataset.task.classes, *counts[ALL]))
    return {name: {label: of[label] for label in rows} for name, of in counts.items()}


def _columns(dataset: Dataset, measures: Mapping[str, Measures]) -> Measured:
    rows = [measures.get(example.id) for example in dataset]

    def column(name: str) -> tuple[Any, ...]:
        return tuple(None if row is None else getattr(row, name) for row in rows)

    def votes(name: str) -> tuple[float | None, ...]:
        values = tuple(_number(example.metadata.get(name)) for example in dataset)
        return values if any(value is not None for value in values) else ()

    measured = ("width", "height", "format", "num_bytes", "brightness", "contrast", "sharpness", "detail")
    return Measured(
        ids=dataset.ids,
        labels=dataset.labels,
        splits=tuple(dataset.splits.get(name) for name in dataset.ids),
        tokens=_tokens(dataset.task, [None if row is None else (row.width, row.height) for row in rows]),
        vote_share=votes("vote_share"),
        vote_margin=votes("vote_margin"),
        **{name: column(name) for name in measured},
    )


def _tokens(task: Task, sizes: list[tuple[int, int] | None]) -> dict[str, tuple[int | None, ...]]:
    """Return what each family that can tell spends on photos of these sizes, once within the task's budget."""
    fitted = {size: fitting_size(*size, max_pixels=task.max_pixels) for size in set(sizes) if size is not None}
    spent: dict[str, tuple[int | None, ...]] = {}
    known = {name: family for name, family in FAMILIES.items() if family.grid is not None}
    for name, family in known.items():
        cost = {size: family.image_tokens(*shrunk) for size, shrunk in fitted.items()}
        spent[name] = tuple(None if size is None else cost[size] for size in sizes)
    return spent


def _spent(tokens: tuple[int | None, ...], num_readable: int) -> ImageTokens:
    known = [number for number in tokens if number is not None]
    each = Quantiles.of(known) if known else None
    return ImageTokens(each=each, total=sum(known), num_refused=num_readable - len(known))


def _samples(dataset: Dataset, *, readable: Collection[str]) -> Iterator[Sample]:
    taken: Counter[str] = Counter()
    labels = {example.id: example.label for example in dataset if example.id in readable}
    for example_id in nested_order(labels, seed=0):
        members = dataset.task.members(labels[example_id]) or (NONE,)
        if wanting := [label for label in members if taken[label] < NUM_SAMPLES]:
            small = images.thumbnail(dataset.by_id(example_id).image, size=SAMPLE_SIZE)
            uri = images.data_uri(small, "image/jpeg")
            for label in wanting:
                taken[label] += 1
                yield Sample(example_id=example_id, label=label, thumbnail=uri)


def _number(value: object) -> float | None:
    try:
        return None if value is None or value == "" else float(str(value))
    except ValueError:
        return None
