"""The copies that the steel set has of its own, over random splits, and what they do to an accuracy.

    python benchmarks/steel_leaks.py DATA --sheet FOLDER

DATA holds `neu_det` and `mobilenet_v2`. For each of five random splits, three quarters for training, every leak
is listed with its evidence. A logistic regression on two embeddings is trained on the training photos; its
accuracy on the leaked test photos is set against that on the clean ones. The interval of the difference, all
splits pooled, comes from a bootstrap that redraws photos: a photo is in the test split of several of them, and
its answers belong together.

With --sheet, 60 of the pairs, drawn at random, are laid on top of each other in one picture for the eye: the
test photo, the training photo, the first warped onto the second, and their difference.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from leakage.peers import MobileNet
from leakage.sources import load
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlm_tune import Dataset, LeakageChecker, Task
from vlm_tune.embedding import Embedder, PixelEmbedder
from vlm_tune.leakage import LeakPair
from vlm_tune.records import Example
from vlm_tune.statistics import wilson

KNOWN = (
    ("rolled-in_scale", 62, 63),
    ("crazing", 206, 207),
    ("pitted_surface", 55, 56),
    ("pitted_surface", 18, 20),
    ("scratches", 24, 294),
)
"""Pairs confirmed by eye beforehand: neighbours on one strip; the last is one place turned by a quarter."""
SIDE = 150
BOOTSTRAP = 5000


@dataclass(frozen=True)
class Answer:
    """One test photo in one split: was it leaked, and was the probe right about it."""

    photo: str
    is_leaked: bool
    is_right: dict[str, bool]


def main() -> None:
    """Check five splits, print the tables, and draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--sheet", type=Path, help="folder, outside the project, for the contact sheet")
    arguments = parser.parse_args()
    embedders: list[Embedder] = [PixelEmbedder(), MobileNet(arguments.data / "mobilenet_v2")]
    vectors: dict[str, dict[str, NDArray[np.float32]]] = {}
    leaks: dict[tuple[str, str], LeakPair] = {}
    answers: list[Answer] = []
    photos: dict[str, Example] = {}
    print("| split | leaked test photos | leaked pairs | of two classes |\n|---|---|---|---|")
    for seed in range(arguments.splits):
        train, test = load(arguments.data, "neu_det", seed=seed)
        photos |= {example.id: example for example in (*train, *test)}
        for embedder in embedders:
            if embedder.name not in vectors:
                rows = embedder.embed([photos[name].read() for name in photos])
                vectors[embedder.name] = dict(zip(photos, rows, strict=True))
        report = LeakageChecker(embedders[0]).check(_dataset(train, test))
        leaks |= {_key(pair): pair for pair in report.leaks}
        leaked = set(report.leaked_test_ids)
        mixed = sum(pair.a_label != pair.b_label for pair in report.leaks)
        print(f"| {seed} | {wilson(len(leaked), len(test))} | {len(report.leaks)} | {mixed} |", flush=True)
        if seed == 0:
            known_pairs = _known(train, test, embedders[0])
        right = {name: _probe(train, test, known) for name, known in vectors.items()}
        answers += [
            Answer(it.id, it.id in leaked, {name: bool(right[name][i]) for name in right}) for i, it in enumerate(test)
        ]
    print(f"\n{_accuracies(answers)}\n\n{known_pairs}\n\n{len(leaks)} pairs in all:\n")
    for pair in leaks.values():
        print(f"- {pair.a_id} ~ {pair.b_id}: {pair.tier}, {pair.explanation}")
    if arguments.sheet:
        _draw(list(leaks.values()), photos, arguments.sheet)


def _known(train: Sequence[Example], test: Sequence[Example], embedder: Embedder) -> str:
    """Move the known pairs across a split and say what is found of them."""
    names = [tuple(f"{kind}/{kind}_{number}.jpg" for number in numbers) for kind, *numbers in KNOWN]
    here, there = {first for first, _ in names}, {second for _, second in names}
    every = (*train, *test)
    was_train = {it.id for it in train}
    in_train = [it for it in every if it.id in there or (it.id in was_train and it.id not in here)]
    in_test = [it for it in every if it not in in_train]
    report = LeakageChecker(embedder).check(_dataset(in_train, in_test))
    found = {(pair.a_id, pair.b_id): pair for pair in report.leaks}
    return "\n".join(
        f"- {first} ~ {second}: {found[first, second].explanation if (first, second) in found else '**not found**'}"
        for first, second in names
    )


def _key(pair: LeakPair) -> tuple[str, str]:
    return min(pair.a_id, pair.b_id), max(pair.a_id, pair.b_id)


def _dataset(train: Sequence[Example], test: Sequence[Example]) -> Dataset:
    task = Task(prompt="Which defect?", classes=tuple(sorted({example.label for example in train})))
    splits = {it.id: "train" for it in train} | {it.id: "test" for it in test}
    return Dataset([*train, *test], task=task, splits=splits)


def _probe(
    train: Sequence[Example], test: Sequence[Example], known: dict[str, NDArray[np.float32]]
) -> NDArray[np.bool_]:
    """Whether a logistic regression is right about each test photo."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    probe.fit(np.stack([known[it.id] for it in train]), [it.label for it in train])
    said = probe.predict(np.stack([known[it.id] for it in test]))
    return np.asarray(said == np.array([it.label for it in test]))


def _accuracies(answers: Sequence[Answer]) -> str:
    lines = [
        "| probe on | leaked | clean | difference, 95 % | the same, within classes |",
        "|---|---|---|---|---|",
    ]
    for name in answers[0].is_right:
        cells = []
        for leaked in (True, False):
            here = [it.is_right[name] for it in answers if it.is_leaked is leaked]
            cells.append(f"{wilson(sum(here), len(here))}")
        cells += [_difference(answers, name, by_class=by_class) for by_class in (False, True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _difference(answers: Sequence[Answer], name: str, *, by_class: bool) -> str:
    """Accuracy on leaked minus accuracy on clean answers, in points."""
    photos = sorted({it.photo for it in answers})
    place = {photo: row for row, photo in enumerate(photos)}
    kinds = sorted({photo.split("/")[0] for photo in photos}) if by_class else [""]
    # counts[photo, class, leaked, right]
    counts = np.zeros((len(photos), len(kinds), 2, 2))
    for it in answers:
        kind = kinds.index(it.photo.split("/")[0]) if by_class else 0
        counts[place[it.photo], kind, int(it.is_leaked), int(it.is_right[name])] += 1
    rng = np.random.default_rng(0)
    drawn = [_gap(counts[rng.integers(len(photos), size=len(photos))].sum(axis=0)) for _ in range(BOOTSTRAP)]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return f"{100 * _gap(counts.sum(axis=0)):+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _gap(counts: NDArray[np.float64]) -> float:
    """Weighted mean over the classes; counts has shape (classes, leaked, right)."""
    totals = counts.sum(axis=2)
    there = (totals > 0).all(axis=1)
    if not there.any():
        return float("nan")
    accuracy = counts[there, :, 1] / totals[there]
    return float(np.average(accuracy[:, 1] - accuracy[:, 0], weights=totals[there, 1]))


def _draw(pairs: Sequence[LeakPair], photos: dict[str, Example], folder: Path) -> None:
    """Draw 60 pairs, 20 to a picture, and list their names."""
    rng = np.random.default_rng(0)
    chosen = [pairs[i] for i in sorted(rng.choice(len(pairs), size=min(60, len(pairs)), replace=False))]
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(chosen), 20):
        some = chosen[start : start + 20]
        sheet = Image.new("RGB", (2 * (4 * SIDE + 20), 10 * (SIDE + 16)), "white")
        for number, pair in enumerate(some):
            left, top = (number % 2) * (4 * SIDE + 20), (number // 2) * (SIDE + 16)
            for place, image in enumerate(_pictures(pair, photos)):
                sheet.paste(image.resize((SIDE, SIDE)), (left + place * SIDE, top + 14))
            title = f"{start + number}: {pair.a_id.split('/')[1]} ~ {pair.b_id.split('/')[1]}"
            ImageDraw.Draw(sheet).text((left, top), title, fill="black")
        sheet.save(folder / f"steel_{start:02d}.png")
    (folder / "steel.txt").write_text("\n".join(f"{n}\t{p.a_id}\t{p.b_id}" for n, p in enumerate(chosen)) + "\n")


def _pictures(pair: LeakPair, photos: dict[str, Example]) -> list[Image.Image]:
    import cv2

    a, b = (np.asarray(Image.open(io.BytesIO(photos[name].read())).convert("L")) for name in (pair.a_id, pair.b_id))
    if "transform" not in pair.evidence:
        return [Image.fromarray(pixels) for pixels in (a, b, a, np.zeros_like(a))]
    source = np.ascontiguousarray(a[:, ::-1]) if pair.evidence["flipped"] else a
    size = b.shape[1], b.shape[0]
    matrix = np.array(pair.evidence["transform"])
    warped = cv2.warpAffine(source, matrix, size)
    inside = cv2.warpAffine(np.ones_like(source), matrix, size) > 0
    apart = np.where(inside, np.clip(np.abs(warped.astype(int) - b) * 4, 0, 255), 0).astype(np.uint8)
    return [Image.fromarray(pixels) for pixels in (a, b, warped, apart)]


if __name__ == "__main__":
    main()
