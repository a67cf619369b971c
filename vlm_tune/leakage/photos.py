"""The photos of a dataset, equal ones once: what has the same pixels needs no search and no proof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_tune._spreading import Spreads
from vlm_tune.embedding import Embedder, workers
from vlm_tune.errors import ImageError
from vlm_tune.leakage.gathering import Gathered, gather
from vlm_tune.records import Example

__all__ = ["Distinct", "distinct"]


@dataclass(frozen=True)
class Distinct:
    """What was read of some examples.

    Attributes:
        gathered: The photos, equal files once.
        members: Row of `gathered` to the examples with these pixels, in order; of rows with equal pixels only
            the first is here.
        unreadable: Id of each example that cannot be read, and why.
    """

    gathered: Gathered
    members: Mapping[int, tuple[Example, ...]]
    unreadable: Mapping[str, str]


def distinct(
    examples: Sequence[Example], embedder: Embedder, *, cache_dir: Path | None = None, backend: Spreads | None = None
) -> Distinct:
    """Read and embed examples, each content once.

    Args:
        examples: What to read.
        embedder: What makes the vectors.
        cache_dir: Where vectors are kept between runs.
        backend: Where photos are read and embedded; None: in this process.
    """
    files, unreadable = _by_content(examples)
    gathered = gather([same[0] for same in files.values()], embedder, cache_dir=cache_dir, backend=backend)
    first_row: dict[str, int] = {}
    members: defaultdict[int, list[Example]] = defaultdict(list)
    for row, (example, pixels) in enumerate(zip(gathered.examples, gathered.pixel_hashes, strict=True)):
        members[first_row.setdefault(pixels, row)] += files[example.content_hash]
    for same in files.values():
        if (reason := gathered.unreadable.get(same[0].id)) is not None:
            others = {example.id: f"{example.id} is the same file as {same[0].id}" for example in same[1:]}
            unreadable |= {same[0].id: reason, **others}
    place = {example.id: index for index, example in enumerate(examples)}
    ordered = {row: tuple(sorted(same, key=lambda one: place[one.id])) for row, same in members.items()}
    return Distinct(gathered, ordered, unreadable)


def _by_content(examples: Sequence[Example]) -> tuple[dict[str, list[Example]], dict[str, str]]:
    """Group examples by the hash of their bytes; those whose file cannot be read are listed apart."""

    def hashed(example: Example) -> str | ImageError:
        try:
            return example.content_hash
        except ImageError as error:
            return error

    files: defaultdict[str, list[Example]] = defaultdict(list)
    unreadable: dict[str, str] = {}
    with workers() as pool:
        for example, content in zip(examples, pool.map(hashed, examples), strict=True):
            if isinstance(content, ImageError):
                unreadable[example.id] = str(content)
            else:
                files[content].append(example)
    return files, unreadable
