"""The one pass over the photos: each is read, decoded completely and measured, in threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vlm_tune._console import progress
from vlm_tune.data import Quarantined
from vlm_tune.errors import ImageError
from vlm_tune.profiling.measures import Measures, measure
from vlm_tune.records import Example

__all__ = ["in_threads", "measure_all"]

_MAX_WORKERS = 8
_BATCH = 1024
_JOB = 16

T = TypeVar("T")


def measure_all(examples: Sequence[Example]) -> tuple[dict[str, Measures], list[Quarantined]]:
    """Measure every photo; return what was measured by example id, and the photos that do not decode.

    A photo whose bytes were met before is not measured again.
    """
    measures: dict[str, Measures] = {}
    broken: list[Quarantined] = []
    known: dict[bytes, Measures] = {}

    def look_at(example: Example) -> Measures | Quarantined:
        try:
            data = example.read()
            key = hashlib.sha256(data).digest()
            if key not in known:
                known[key] = measure(data, name=example.id)
            return known[key]
        except ImageError as error:
            return Quarantined(example_id=example.id, reason=error.reason)

    for example, found in zip(examples, in_threads(look_at, examples, title="Reading photos"), strict=True):
        if isinstance(found, Quarantined):
            broken.append(found)
        else:
            measures[example.id] = found
    return measures, broken


def in_threads(work: Callable[[Example], T], examples: Sequence[Example], *, title: str) -> Iterator[T]:
    """Yield what `work` returns for each example, in order; a bar on stderr shows the progress."""

    def do(job: Sequence[Example]) -> list[T]:
        return [work(example) for example in job]

    workers = min(_MAX_WORKERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool, progress(title, total=len(examples)) as bar:
        # In batches, so that a million photos are not a million waiting jobs.
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            for done in pool.map(do, [batch[place : place + _JOB] for place in range(0, len(batch), _JOB)]):
                yield from done
                bar.advance(len(done))
