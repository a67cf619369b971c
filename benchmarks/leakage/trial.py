"""One trial: copies of training photos planted into the test split, and what each method says about them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from leakage.peers import MobileNet, Peer, peers
from leakage.sources import load
from leakage.transformations import SINGLES, copy_of, random_pair
from vlm_tune import Dataset, LeakageChecker, LeakageReport, Task
from vlm_tune.embedding import Embedder, PixelEmbedder
from vlm_tune.leakage import proving
from vlm_tune.leakage.aligning import Photo
from vlm_tune.leakage.gathering import gather
from vlm_tune.leakage.pairs import COPIES
from vlm_tune.leakage.verify import Proof, verify
from vlm_tune.records import Example

__all__ = ["CNN_RULE", "FIXED_RULE", "Clean", "Outcome", "Setting", "Trial", "clean", "plant", "prepare"]

Array = NDArray[np.float32]

FIXED_RULE = "cosine 0.95, same embeddings"
CNN_RULE = "CNN rule: mobilenet_v2, cosine 0.9"


@dataclass(frozen=True)
class Setting:
    """What all trials of one set share."""

    data: Path
    source: str
    embedder: str
    seed: int
    memory: Path
    """Folder for embeddings of the set's own photos, which every trial needs again."""


@dataclass(frozen=True)
class Trial:
    """Copies of some training photos, one of each, so that no copy gets in another one's way."""

    setting: Setting
    kind: Literal["singles", "pairs"]
    """Each transformation in turn, or pairs of them at random."""
    num: int
    part: int


@dataclass(frozen=True)
class Outcome:
    """What became of one planted copy."""

    source: str
    kind: str
    part: int
    original: str
    steps: tuple[str, ...]
    found: bool
    """Called a leak of its original."""
    called: bool
    """Called a leak of any training photo: the original may have copies of its own."""
    shortlisted: bool
    """Compared with its original, pixel by pixel, in the course of the check."""
    proved: bool
    """Proved when it is compared with its original."""
    peers: dict[str, bool]
    """What other rules say about it and its original."""


@dataclass(frozen=True)
class Clean:
    """What was said about the photos that nobody planted."""

    source: str
    num_train: int
    num_test: int
    report: LeakageReport
    same_when_shuffled: bool
    flagged: tuple[int, int]
    """Test photos called leaked, and those called so to a photo of another class."""
    peers: dict[str, tuple[int, int]]
    """Rule to test photos called duplicates of any training photo, and of one of another class."""


class Remembered:
    """What an embedder made of photos seen before."""

    def __init__(self, embedder: Embedder, known: dict[str, Array]) -> None:
        self._embedder = embedder
        self.known = known

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image."""
        keys = [hashlib.sha256(data).hexdigest() for data in images]
        fresh = {key: data for key, data in zip(keys, images, strict=True) if key not in self.known}
        if fresh:
            self.known.update(zip(fresh, self._embedder.embed(list(fresh.values())), strict=True))
        return np.stack([self.known[key] for key in keys])


def prepare(share: tuple[Setting, int, int]) -> None:
    """Embed one part of a set's own photos, for the checker and for the rules beside it.

    Args:
        share: The setting, which part, and of how many.
    """
    setting, part, parts = share
    train, test = _photos(setting.data, setting.source, setting.seed)
    mine = [*train, *test][part::parts]
    gather(mine, _embedder(setting.embedder, setting.data), cache_dir=_cache(setting))
    for name in {setting.embedder, "mobilenet"}:
        embedder = Remembered(_embedder(name, setting.data), {})
        embedder.embed([example.read() for example in mine])
        keys = list(embedder.known)
        vectors = np.stack([embedder.known[key] for key in keys])
        np.savez(setting.memory / f"{setting.source}-{name}-{part}.npz", keys=np.array(keys), vectors=vectors)


def clean(setting: Setting) -> Clean:
    """Check the set as it is, and again with all labels shuffled."""
    train, test = _photos(setting.data, setting.source, setting.seed)
    checker = _checker(setting)
    report = checker.check(_dataset(train, test))
    labels = np.random.default_rng(setting.seed).permutation([example.label for example in (*train, *test)])
    shuffled = [one.model_copy(update={"label": str(new)}) for one, new in zip((*train, *test), labels, strict=True)]
    again = checker.check(_dataset(shuffled[: len(train)], shuffled[len(train) :]))
    kinds = np.array([example.label for example in train])
    others = np.array([example.label for example in test])[:, None] != kinds[None]
    rules = _rules(setting, [example.read() for example in test])
    wrong = {pair.a_id for pair in report.leaks if pair.a_label != pair.b_label}
    return Clean(
        source=setting.source,
        num_train=len(train),
        num_test=len(test),
        report=report,
        same_when_shuffled=_without_labels(report) == _without_labels(again),
        peers={
            name: (int(said.any(axis=1).sum()), int((said & others).any(axis=1).sum())) for name, said in rules.items()
        },
        flagged=(len(report.leaked_test_ids), len(wrong)),
    )


def plant(trial: Trial) -> list[Outcome]:
    """Plant copies, check the set, and look up each copy."""
    setting = trial.setting
    train, _ = _photos(setting.data, setting.source, setting.seed)
    rng = np.random.default_rng([setting.seed, trial.part, *trial.kind.encode()])
    chosen = rng.choice(len(train), size=trial.num, replace=False)
    steps = [
        random_pair(rng) if trial.kind == "pairs" else (SINGLES[place % len(SINGLES)],) for place in range(trial.num)
    ]
    copies = [
        Example(id=f"copy {number}", image=copy_of(_decoded(train[row]), how, rng), label=train[row].label)
        for number, (row, how) in enumerate(zip(chosen, steps, strict=True))
    ]
    with _noted() as asked:
        report = _checker(setting).check(_dataset(train, copies))
    first = {name: same[0] for same in report.identical for name in same}
    leaks = {(pair.a_id, first.get(pair.b_id, pair.b_id)) for pair in report.leaks}
    rules = _rules(setting, [copy.read() for copy in copies])
    outcomes = []
    for number, (row, how, copy) in enumerate(zip(chosen, steps, copies, strict=True)):
        planted, original = (Photo.of(_decoded(example)) for example in (copy, train[row]))
        both = planted.grey.tobytes(), original.grey.tobytes()
        name = first.get(train[row].id, train[row].id)
        outcomes.append(
            Outcome(
                source=setting.source,
                kind="pairs" if trial.kind == "pairs" else how[0].name,
                part=trial.part,
                original=train[row].id,
                steps=tuple(step.name for step in how),
                found=(copy.id, name) in leaks,
                called=copy.id in report.leaked_test_ids,
                shortlisted=(copy.id, name) in leaks or both in asked or both[::-1] in asked,
                proved=verify(planted, original).tier in COPIES,
                peers={rule: bool(said[number, row]) for rule, said in rules.items()},
            )
        )
    return outcomes


@contextmanager
def _noted() -> Iterator[set[tuple[bytes, bytes]]]:
    """Note which pairs of photos the checker compares pixel by pixel."""
    asked: set[tuple[bytes, bytes]] = set()

    def noting(first: Photo, second: Photo) -> Proof:
        asked.add((first.grey.tobytes(), second.grey.tobytes()))
        return verify(first, second)

    with mock.patch.object(proving, "verify", noting):
        yield asked


def _rules(setting: Setting, images: Sequence[bytes]) -> dict[str, NDArray[np.bool_]]:
    """What each other rule says of every pair of an image and a training photo."""
    train, _ = _photos(setting.data, setting.source, setting.seed)
    own = [example.read() for example in train]
    said = {}
    for name, embedder, least in ((FIXED_RULE, setting.embedder, 0.95), (CNN_RULE, "mobilenet", 0.9)):
        known = _remembered(setting, embedder)
        said[name] = known.embed(images) @ known.embed(own).T >= least
    for peer in peers():
        if isinstance(peer, Peer):
            said[peer.name] = peer.duplicates(peer.bits(images), _hashed(peer.name, setting))
    return said


@lru_cache(16)
def _hashed(name: str, setting: Setting) -> NDArray[np.uint8]:
    train, _ = _photos(setting.data, setting.source, setting.seed)
    peer = next(peer for peer in peers() if isinstance(peer, Peer) and peer.name == name)
    return peer.bits([example.read() for example in train])


_photos = lru_cache(4)(lambda data, source, seed: load(data, source, seed=seed))


def _embedder(name: str, data: Path) -> Embedder:
    return MobileNet(data / "mobilenet_v2") if name == "mobilenet" else PixelEmbedder()


def _cache(setting: Setting) -> Path:
    return setting.memory / setting.source


def _checker(setting: Setting) -> LeakageChecker:
    return LeakageChecker(_embedder(setting.embedder, setting.data), cache_dir=_cache(setting))


@lru_cache(8)
def _remembered(setting: Setting, name: str) -> Remembered:
    known: dict[str, Array] = {}
    for path in setting.memory.glob(f"{setting.source}-{name}-*.npz"):
        with np.load(path) as memory:
            known.update(zip(memory["keys"].tolist(), memory["vectors"], strict=True))
    return Remembered(_embedder(name, setting.data), known)


def _dataset(train: Sequence[Example], test: Sequence[Example]) -> Dataset:
    classes = tuple(sorted({example.label for example in (*train, *test)}))
    splits = {example.id: "train" for example in train} | {example.id: "test" for example in test}
    return Dataset([*train, *test], task=Task(prompt="Which class?", classes=classes), splits=splits)


def _decoded(example: Example) -> Image.Image:
    return Image.open(io.BytesIO(example.read())).convert("RGB")


def _without_labels(report: LeakageReport) -> dict[str, Any]:
    """A report without what it merely repeats from the dataset."""
    said = report.model_dump(exclude={"dataset_fingerprint", "places", "classes"})
    for name in ("pairs", "within"):
        said[name] = [{key: value for key, value in pair.items() if "label" not in key} for pair in said[name]]
    return said
