"""One trial: copies of training photos planted into the test split, and what each method says about them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from leakage.peers import MobileNet, Peer, peers
from leakage.sources import load
from leakage.transformations import SINGLES, Transformation, copy_of, random_pair
from numpy.typing import NDArray
from PIL import Image

from vlm_tune import Dataset, LeakageChecker, LeakageReport, LeakPair, Task
from vlm_tune.embedding import Embedder, PixelEmbedder
from vlm_tune.leakage.gathering import gather
from vlm_tune.leakage.neighbours import top_k
from vlm_tune.leakage.report import LEAKS
from vlm_tune.leakage.verify import Photo, verify
from vlm_tune.records import Example

__all__ = ["CNN_RULE", "FIXED_RULE", "Clean", "Outcome", "Setting", "Trial", "clean", "plant", "prepare"]

Array = NDArray[np.float32]

SHORTLIST, DEPTH = 5, 20
"""What the checker verifies of each photo by default: always, and where the cut is reached."""
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
    """Copies of some training photos, all made in one way; `kind` is a single's name or `pairs`."""

    setting: Setting
    kind: str
    num: int
    part: int = 0


@dataclass(frozen=True)
class Outcome:
    """What became of one planted copy."""

    source: str
    kind: str
    steps: tuple[str, ...]
    found: bool
    shortlisted: bool
    proved: bool
    peers: dict[str, bool]
    original: str
    part: int


@dataclass(frozen=True)
class Clean:
    """What was said about the photos that nobody planted."""

    source: str
    num_train: int
    num_test: int
    report: LeakageReport
    same_when_shuffled: bool
    peers: dict[str, tuple[int, int]]
    """Rule to test photos called duplicates of any training photo, and of one of another class."""
    flagged: tuple[int, int] = field(default=(0, 0))


class Remembered:
    """An embedder that looks up the photos it has seen before."""

    def __init__(self, embedder: Embedder, known: dict[str, Array]) -> None:
        self._embedder = embedder
        self.name = embedder.name
        self.mirror_invariant = bool(getattr(embedder, "mirror_invariant", False))
        self.known = known

    def embed(self, images: Sequence[bytes]) -> Array:
        """Return a row of norm 1 for each encoded image."""
        keys = [hashlib.sha256(data).hexdigest() for data in images]
        fresh = {key: data for key, data in zip(keys, images, strict=True) if key not in self.known}
        if fresh:
            self.known.update(zip(fresh, self._embedder.embed(list(fresh.values())), strict=True))
        return np.stack([self.known[key] for key in keys])


def prepare(setting: Setting) -> None:
    """Embed a set's own photos, with the trial's embedder and with the network of the CNN rule."""
    train, test = _photos(setting.data, setting.source, setting.seed)
    for name in {setting.embedder, "mobilenet"}:
        embedder = Remembered(_embedder(name, setting.data), {})
        gather([*train, *test], embedder)
        if name == "mobilenet":
            embedder.embed([example.read() for example in (*train, *test)])
        keys = np.array(list(embedder.known))
        np.savez(_memory(setting, name), keys=keys, vectors=np.stack([embedder.known[key] for key in keys]))


def clean(setting: Setting) -> Clean:
    """Check the set as it is, and again with all labels shuffled."""
    train, test = _photos(setting.data, setting.source, setting.seed)
    checker = LeakageChecker(_remembered(setting, setting.embedder))
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
    chosen = rng.choice(len(train), size=min(trial.num, len(train)), replace=False)
    steps = [_steps(trial.kind, rng) for _ in chosen]
    copies = [
        Example(id=f"copy {number}", image=copy_of(_decoded(train[row]), how, rng), label=train[row].label)
        for number, (row, how) in enumerate(zip(chosen, steps, strict=True))
    ]
    embedder = _remembered(setting, setting.embedder)
    report = LeakageChecker(embedder).check(_dataset(train, copies))
    found = {(pair.a_id, pair.b_id) for pair in report.leaks}
    listed = _shortlisted(train, copies, chosen, embedder, report.cut)
    rules = _rules(setting, [copy.read() for copy in copies])
    return [
        Outcome(
            source=setting.source,
            kind=trial.kind,
            steps=tuple(step.name for step in how),
            found=(copy.id, train[row].id) in found,
            shortlisted=bool(listed[number]),
            proved=verify(Photo.of(_decoded(copy)), Photo.of(_decoded(train[row]))).tier in LEAKS,
            peers={name: bool(said[number, row]) for name, said in rules.items()},
            original=train[row].id,
            part=trial.part,
        )
        for number, (row, how, copy) in enumerate(zip(chosen, steps, copies, strict=True))
    ]


def _steps(kind: str, rng: np.random.Generator) -> tuple[Transformation, ...]:
    return random_pair(rng) if kind == "pairs" else tuple(one for one in SINGLES if one.name == kind)


def _shortlisted(
    train: Sequence[Example], copies: Sequence[Example], chosen: NDArray[np.int64], embedder: Embedder, cut: float | None
) -> NDArray[np.bool_]:
    """Whether each copy's original is among the photos that the checker verifies."""
    gathered = gather([*train, *copies], embedder)
    mean = np.asarray(gathered.vectors[: len(train)].mean(axis=0), np.float32)
    queries = gathered.views(np.arange(len(train), len(gathered)), mean)
    references = gathered.views(np.arange(len(train)), mean)[0]
    indices, scores = top_k(queries, references, DEPTH)
    verified = scores >= (np.inf if cut is None else cut)
    verified[:, :SHORTLIST] = True
    return np.asarray(((indices == chosen[:, None]) & verified).any(axis=1))


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


def _memory(setting: Setting, name: str) -> Path:
    return setting.memory / f"{setting.source}-{name}.npz"


@lru_cache(8)
def _remembered(setting: Setting, name: str) -> Remembered:
    with np.load(_memory(setting, name)) as memory:
        known = dict(zip(memory["keys"].tolist(), memory["vectors"], strict=True))
    return Remembered(_embedder(name, setting.data), known)


def _dataset(train: Sequence[Example], test: Sequence[Example]) -> Dataset:
    classes = tuple(sorted({example.label for example in (*train, *test)}))
    splits = {example.id: "train" for example in train} | {example.id: "test" for example in test}
    return Dataset([*train, *test], task=Task(prompt="Which class?", classes=classes), splits=splits)


def _decoded(example: Example) -> Image.Image:
    return Image.open(io.BytesIO(example.read())).convert("RGB")


def _without_labels(report: LeakageReport) -> dict[str, Any]:
    """A report without what it merely repeats from the dataset."""
    said = report.model_dump(exclude={"dataset_fingerprint"})
    for name in ("pairs", "within"):
        said[name] = [{key: value for key, value in pair.items() if "label" not in key} for pair in said[name]]
    return said


def other_class(report: LeakageReport) -> list[LeakPair]:
    """Leaks whose two photos have different labels."""
    return [pair for pair in report.leaks if pair.a_label != pair.b_label]
