"""What the audit tests share: photos of three classes with some labels wrong, embeddings of them, and systems."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from vlm_tune.data import Dataset
from vlm_tune.embedding import FunctionEmbedder
from vlm_tune.evaluation import Evaluation
from vlm_tune.images import blank
from vlm_tune.records import Example
from vlm_tune.task import Task

CLASSES = ("crack", "dent", "scratch")
TASK = Task(prompt="What damage does the photo show?", classes=CLASSES)


@dataclass(frozen=True)
class Planted:
    """Photos some of whose labels were made wrong."""

    data: Dataset
    true: dict[str, str]
    wrong: frozenset[str]
    vectors: np.ndarray
    embedder: FunctionEmbedder

    def system(self, name: str, *, errors: int, seed: int) -> Evaluation:
        """A system that knows the true classes of the test photos but for some."""
        rng, test = np.random.default_rng(seed), self.data.test
        missed = set(rng.choice(test.ids, errors, replace=False).tolist())
        answers = {
            example_id: CLASSES[(CLASSES.index(self.true[example_id]) + (example_id in missed)) % 3]
            for example_id in test.ids
        }
        truth = {example.id: example.label for example in test}
        return Evaluation.from_answers(name, truth=truth, answers=answers, classes=CLASSES)


def plant(
    *, num: int = 90, wrong: int = 6, seed: int = 0, group: Callable[[int], str | None] = lambda _: None
) -> Planted:
    """Photos in three clouds of vectors that overlap a little, and wrong labels among them."""
    rng = np.random.default_rng(seed)
    classes = np.arange(num) % 3
    vectors = rng.normal(size=(num, 12)) + 3.0 * np.eye(12)[classes]
    chosen = set(rng.choice(num, wrong, replace=False).tolist())
    images = [blank(8 + at // 30, 8 + at % 30) for at in range(num)]
    row_of = {hashlib.sha256(image).digest(): at for at, image in enumerate(images)}

    def embed(photos: Sequence[bytes]) -> np.ndarray:
        return vectors[[row_of[hashlib.sha256(photo).digest()] for photo in photos]]

    embedder = FunctionEmbedder(embed)
    embedder.mirror_invariant = True  # type: ignore[attr-defined]
    ids = [f"{at:03d}.jpg" for at in range(num)]
    examples = [
        Example(id=name, image=image, label=CLASSES[(kind + (at in chosen)) % 3], group=group(at))
        for at, (name, image, kind) in enumerate(zip(ids, images, classes.tolist(), strict=True))
    ]
    splits = {name: "test" if at % 2 else "train" for at, name in enumerate(ids)}
    return Planted(
        data=Dataset(examples, task=TASK, splits=splits),  # type: ignore[arg-type]
        true={name: CLASSES[kind] for name, kind in zip(ids, classes.tolist(), strict=True)},
        wrong=frozenset(ids[at] for at in chosen),
        vectors=vectors,
        embedder=embedder,
    )


@pytest.fixture(scope="session")
def planted() -> Planted:
    return plant()


@pytest.fixture(scope="session")
def systems(planted: Planted) -> list[Evaluation]:
    return [planted.system("base", errors=9, seed=1), planted.system("tuned", errors=3, seed=2)]
