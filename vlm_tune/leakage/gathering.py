"""Reading the photos of a dataset once: embeddings, landmarks, pixel hashes, and which cannot be read."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlm_tune._console import progress
from vlm_tune._spreading import Spreads
from vlm_tune.embedding import LANDMARKS, Embedder, FunctionEmbedder, checked, landmarks
from vlm_tune.errors import EmbeddingError, ImageError
from vlm_tune.images import decode
from vlm_tune.leakage.memory import Columns, Memory
from vlm_tune.leakage.neighbours import centred
from vlm_tune.leakage.voting import Details
from vlm_tune.records import Example

__all__ = ["Gathered", "gather"]

Array = NDArray[np.float32]

BATCH = 128
"""Photos that are embedded, and then kept on disk, at a time; as many are read ahead meanwhile."""
LONG_SIDE = 512
"""Larger photos are embedded at this length, in pixels: no embedder looks at more."""
FACTS = "pixel hash, landmarks, version 1"


@dataclass(frozen=True)
class Gathered:
    """What was read of some examples; row i of each array is `examples[i]`.

    Attributes:
        examples: Those that can be read, in order.
        vectors: Their embeddings, shape (N, D).
        mirrored: Embeddings of their mirror images, shape (N, D), unless the embedder is blind to mirroring.
        details: Their landmarks, for `vlm_tune.leakage.voting.vote`.
        byte_hashes: SHA-256 of each file.
        pixel_hashes: SHA-256 of each photo's size and decoded pixels.
        unreadable: Id of each example that cannot be read, and why.
    """

    examples: tuple[Example, ...]
    vectors: Array
    mirrored: Array | None
    details: Details
    byte_hashes: tuple[str, ...]
    pixel_hashes: tuple[str, ...]
    unreadable: dict[str, str]

    def __len__(self) -> int:
        return len(self.examples)

    def views(self, rows: NDArray[np.int64], mean: Array) -> list[Array]:
        """Return the centred embeddings of some rows, one array for each orientation."""
        planes = [self.vectors] if self.mirrored is None else [self.vectors, self.mirrored]
        return [centred(plane[rows], mean) for plane in planes]


def gather(
    examples: Sequence[Example], embedder: Embedder, *, cache_dir: Path | None = None, backend: Spreads | None = None
) -> Gathered:
    """Read and embed examples; those that cannot be read are listed and left out.

    Args:
        examples: What to read. Those of equal content are read once.
        embedder: What makes the vectors. Its `fingerprint`, or else its `name`, says whether kept vectors are
            its own; where its fingerprint is None they are not kept.
        cache_dir: Folder where the results are kept by content: they are read from there the next time, and
            no photo is decoded.
        backend: Where photos are read and embedded; None: in this process. What is kept is kept here.

    Raises:
        EmbeddingError: The embedder's vectors are not finite numbers of one shape; the message names the photo.
        StorageError: `cache_dir` cannot be written.
    """
    mirror = not getattr(embedder, "mirror_invariant", False)
    fingerprint = getattr(embedder, "fingerprint", embedder.name)
    kept_facts = Memory(cache_dir, FACTS)
    kept_vectors = Memory(None if fingerprint is None else cache_dir, f"vectors by {fingerprint}")
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress("Embedding photos", total=len(examples)) as bar:
        keys, unreadable = _contents(pool, examples)
        facts, vectors = kept_facts.recall(keys.values()), kept_vectors.recall(keys.values())
        fresh = {keys[one.id]: one for one in examples if one.id in keys}
        fresh = {key: one for key, one in fresh.items() if key not in facts or key not in vectors}
        bar.advance(len(examples) - len(fresh))
        read = _Reader(embedder, mirror)
        batches = (
            read.ahead(pool, fresh) if backend is None else backend.map_batches(read, list(fresh.items()), most=BATCH)
        )
        for batch in batches:
            _keep(kept_facts, facts, batch.keys, batch.facts)
            _keep(kept_vectors, vectors, batch.keys, batch.vectors)
            failed = batch.failed
            unreadable |= {one.id: failed[keys[one.id]] for one in examples if keys.get(one.id) in failed}
            bar.advance(len(batch.keys) + len(failed))
    there = [one for one in examples if one.id not in unreadable]
    return _assemble(there, [keys[one.id] for one in there], facts, vectors, unreadable)


@dataclass(frozen=True)
class _Photo:
    """One photo as the embedder gets it, or why it cannot be read."""

    key: str
    name: str
    data: bytes = b""
    mirrored: bytes = b""
    pixel_hash: str = ""
    marks: NDArray[np.uint8] | None = None
    error: ImageError | None = None


@dataclass(frozen=True)
class _Batch:
    """What was read of some photos: columns with a row for each key, and why others cannot be read."""

    keys: list[str]
    facts: Columns
    vectors: Columns
    failed: dict[str, str]


@dataclass(frozen=True)
class _Reader:
    """Reads and embeds photos, here or where it is sent.

    Attributes:
        embedder: What makes the vectors.
        mirror: Whether mirror images are embedded too.
    """

    embedder: Embedder
    mirror: bool

    def __call__(self, keyed: Sequence[tuple[str, Example]]) -> _Batch:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return self._batch([pool.submit(_read, key, one, mirror=self.mirror) for key, one in keyed])

    def ahead(self, pool: Executor, fresh: Mapping[str, Example]) -> Iterator[_Batch]:
        """Yield batches, and read the photos of the next one while one is embedded."""
        waiting = list(fresh.items())
        ahead: list[Future[_Photo]] = []
        for start in range(0, len(waiting) + BATCH, BATCH):
            ready = ahead
            ahead = [pool.submit(_read, key, one, mirror=self.mirror) for key, one in waiting[start : start + BATCH]]
            if ready:
                yield self._batch(ready)

    def _batch(self, reading: Sequence[Future[_Photo]]) -> _Batch:
        photos = [future.result() for future in reading]
        good = [photo for photo in photos if photo.error is None]
        return _Batch(
            keys=[photo.key for photo in good],
            facts=_facts(good),
            vectors=_vectors(self.embedder, good, mirror=self.mirror),
            failed={photo.key: str(photo.error) for photo in photos if photo.error is not None},
        )


def _contents(pool: Executor, examples: Sequence[Example]) -> tuple[dict[str, str], dict[str, str]]:
    """Return each example's id with its content hash, or with why its file cannot be read."""

    def content(example: Example) -> str | ImageError:
        try:
            return example.content_hash
        except ImageError as error:
            return error

    found = dict(zip([one.id for one in examples], pool.map(content, examples), strict=True))
    good = {name: key for name, key in found.items() if isinstance(key, str)}
    return good, {name: str(error) for name, error in found.items() if name not in good}


def _read(key: str, example: Example, *, mirror: bool) -> _Photo:
    try:
        data = example.read()
        image = decode(data, name=example.id)
    except ImageError as error:
        return _Photo(key, example.id, error=error)
    pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    if max(image.size) > LONG_SIDE:
        image.thumbnail((LONG_SIDE, LONG_SIDE), Image.Resampling.BOX)
        data = _png(image)
    other = _png(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) if mirror else b""
    return _Photo(key, example.id, data, other, pixels, landmarks(np.asarray(image.convert("L"))))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _facts(photos: Sequence[_Photo]) -> Columns:
    marks = np.zeros((len(photos), LANDMARKS, 128), np.uint8)
    counts = np.zeros(len(photos), np.int64)
    for row, photo in enumerate(photos):
        if photo.marks is not None:
            marks[row, : len(photo.marks)], counts[row] = photo.marks, len(photo.marks)
    return {"pixels": np.array([photo.pixel_hash.encode() for photo in photos]), "marks": marks, "counts": counts}


def _vectors(embedder: Embedder, photos: Sequence[_Photo], *, mirror: bool) -> Columns:
    names = [photo.name for photo in photos]
    if not photos:
        return {}
    # A function's rows are checked here, where the photos have names.
    embed = embedder.function if isinstance(embedder, FunctionEmbedder) else embedder.embed
    vectors: Columns = {"vector": checked(embed([photo.data for photo in photos]), embedder.name, names)}
    if mirror:
        vectors["mirrored"] = checked(embed([photo.mirrored for photo in photos]), embedder.name, names)
    return vectors


def _keep(memory: Memory, known: dict[str, Columns], keys: Sequence[str], columns: Columns) -> None:
    memory.keep(keys, columns)
    known |= {key: {name: rows[at] for name, rows in columns.items()} for at, key in enumerate(keys)}


def _assemble(
    examples: Sequence[Example],
    keys: Sequence[str],
    facts: Mapping[str, Columns],
    vectors: Mapping[str, Columns],
    unreadable: dict[str, str],
) -> Gathered:
    def column(of: Mapping[str, Columns], name: str, *empty: int) -> NDArray[Any]:
        rows = [of[key][name] for key in keys]
        if len({row.shape for row in rows}) > 1:
            raise EmbeddingError(f"the embedder's vectors have several lengths: {sorted({row.shape for row in rows})}")
        return np.stack(rows) if rows else np.zeros((0, *empty), np.float32)

    with_mirrored = bool(keys) and "mirrored" in vectors[keys[0]]
    return Gathered(
        examples=tuple(examples),
        vectors=column(vectors, "vector", 1),
        mirrored=column(vectors, "mirrored", 1) if with_mirrored else None,
        details=Details(column(facts, "marks", LANDMARKS, 128), column(facts, "counts")),
        byte_hashes=tuple(keys),
        pixel_hashes=tuple(facts[key]["pixels"].item().decode() for key in keys),
        unreadable=unreadable,
    )
