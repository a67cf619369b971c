"""Does the true original of a copy stand on the shortlist? Embeddings raw, centred, whitened and adapted, and votes.

    python benchmarks/embedding_options.py DATA --table options.md

DATA is the folder of the real image sets with `mobilenet_v2` in it. For each set some photos are the training split,
and copies of them, each made in one way, are the queries. Whitening and the projection are fitted on the training
photos: whitening keeps the main axes and divides by their spread; `vlm_tune.embedding.adapt` learns a projection from
copies of the training photos that it changes itself (other code, other numbers than the copies that are looked up).
"Beyond all others": copies more similar to their original than 99 % of the queries are to any other photo.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from leakage.peers import MobileNet
from leakage.sources import SETS, load
from leakage.transformations import SINGLES, Transformation, copy_of, random_pair
from numpy.typing import NDArray
from PIL import Image

from vlm_tune.embedding import AdaptedEmbedder, Embedder, PixelEmbedder, adapt
from vlm_tune.leakage.gathering import Gathered, gather
from vlm_tune.leakage.neighbours import centred
from vlm_tune.leakage.voting import vote
from vlm_tune.records import Example

Array = NDArray[np.float32]
Change = Callable[[Array], Array]

HARD = ("crop, 60 % of the area", "crop, 60 % of each side (36 % area)", "black border, 8 %", "caption over the photo",
        "blur, sigma 1 % of the side")  # fmt: skip


def main() -> None:
    """Measure every set with every embedder and option, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--photos", type=int, default=200, help="training photos of each set")
    parser.add_argument("--copies", type=int, default=10, help="copies of each kind")
    parser.add_argument("--table", type=Path, default=None)
    arguments = parser.parse_args()
    lines = [
        "| set | embedder | option | recall@5 | recall@20 | hard kinds @5 | copies beyond all others |",
        "|---|" * 7,
    ]
    lines[1] = "|---|---|---|---|---|---|---|"
    for name in SETS:
        for line in measure(arguments, name):
            lines.append(line)
            print(line, flush=True)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(arguments: argparse.Namespace, name: str) -> list[str]:
    """Return the table's rows for one set."""
    rng = np.random.default_rng(0)
    train = load(arguments.data, name, seed=0)[0][: arguments.photos]
    images = [Image.open(io.BytesIO(example.read())).convert("RGB") for example in train]
    made = [(kind, row) for kind in (*SINGLES, None) for row in rng.integers(len(train), size=arguments.copies)]
    copies = [_copy(f"{number}", images[row], kind, rng) for number, (kind, row) in enumerate(made)]
    truth = np.array([row for _, row in made])
    hard = np.array([kind is not None and kind.name in HARD for kind, _ in made])
    lines = []
    embedders: tuple[Embedder, ...] = (PixelEmbedder(), MobileNet(arguments.data / "mobilenet_v2"))
    for embedder in embedders:
        gathered = gather([*train, *copies], embedder)
        parts = np.split(np.arange(len(gathered)), [len(train)])
        adapted = adapt(embedder, train)
        for option, change in _options(gathered.vectors[parts[0]], adapted).items():
            scores = _scores(gathered, parts[1], parts[0], change)
            lines.append(_line(name, embedder.name, option, scores, truth, hard))
    rows, votes = vote(gathered.details, parts[1], parts[0], 20)
    scores = np.zeros((len(copies), len(train)))
    there = votes > 0
    scores[np.nonzero(there)[0], rows[there]] = votes[there]
    return [*lines, _line(name, "any", "votes of details", scores, truth, hard)]


def _copy(name: str, image: Image.Image, kind: Transformation | None, rng: np.random.Generator) -> Example:
    steps = random_pair(rng) if kind is None else (kind,)
    return Example(id=f"copy {name}", image=copy_of(image, steps, rng), label="a")


def _scores(gathered: Gathered, queries: NDArray[np.int64], references: NDArray[np.int64], change: Change) -> Array:
    planes = [gathered.vectors] if gathered.mirrored is None else [gathered.vectors, gathered.mirrored]
    others = change(gathered.vectors[references])
    return np.max([change(plane[queries]) @ others.T for plane in planes], axis=0)


def _line(
    name: str,
    embedder: str,
    option: str,
    scores: NDArray[np.floating],
    truth: NDArray[np.int64],
    hard: NDArray[np.bool_],
) -> str:
    own = scores[np.arange(len(scores)), truth]
    # A tie counts against the original, and so does no score at all.
    place = (scores >= own[:, None]).sum(axis=1) + np.where(own > 0, 0, len(truth)) * (option == "votes of details")
    rest = scores.copy()
    rest[np.arange(len(scores)), truth] = -np.inf
    apart = (own > np.quantile(rest.max(axis=1), 0.99)).mean()
    shares = (place <= 5).mean(), (place <= 20).mean(), (place[hard] <= 5).mean(), apart
    return f"| {name} | {embedder} | {option} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |"


def _options(train: Array, adapted: AdaptedEmbedder) -> dict[str, Change]:
    mean = train.mean(axis=0)
    zero = np.zeros_like(mean)
    spread, axes = _main_axes(train - mean)
    return {
        "raw": lambda rows: centred(rows, zero),
        "centred": lambda rows: centred(rows, mean),
        "whitened": lambda rows: centred((rows - mean) @ axes / spread, np.zeros(len(spread), np.float32)),
        "adapted": adapted.project,
    }


def _main_axes(rows: Array, *, share: float = 0.5) -> tuple[Array, Array]:
    _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
    num = max(1, round(share * len(sizes)))
    return sizes[:num] / len(rows) ** 0.5, axes[:num].T


if __name__ == "__main__":
    main()
