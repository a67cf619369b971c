"""How many planted copies the leak check finds, and what it wrongly calls a leak, on real photos.

    python benchmarks/leakage_truth.py DATA --sample 200 --workers 16

DATA holds the folders `neu_det`, `magnetic_tile`, `grocery_small` and `cifar100`, and `mobilenet_v2` with the
network. Three quarters of each set, drawn at random, are for training. Copies of training photos are planted
into the test split, made by one transformation or by two, at most one of each photo; a copy counts as found when
`LeakageChecker` at its default settings calls it a leak *of its original*. Cells read: found (original among
the photos verified, original proved when it is compared), in percent.

Whatever is called a leak among the other quarter, which nobody planted, is either a copy that the set has of
its own or a wrong call: pairs of two classes are counted as wrong, all are listed. Other tools run beside it
where they are installed (`imagededup`, `cleanvision`); imagededup's network is not, so that its rule, cosine
0.9, is shown with mobilenet_v2.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from leakage import known, tables
from leakage.sources import SETS, load
from leakage.transformations import SINGLES
from leakage.trial import Clean, Outcome, Setting, Trial, clean, plant, prepare

MOST = 450
"""Copies planted at a time."""


def main() -> None:
    """Run all trials and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=list(SETS))
    parser.add_argument("--embedder", choices=["pixels", "mobilenet"], default="pixels")
    parser.add_argument("--sample", type=int, default=200, help="copies for each transformation and set")
    parser.add_argument("--pairs", type=int, default=400, help="copies by pairs of transformations for each set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--listed", type=int, default=40, help="pairs of untouched photos to list for each set")
    parser.add_argument("--missed", type=Path, help="file for the list of copies that were not found")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as memory:
        settings = [
            Setting(arguments.data, name, arguments.embedder, arguments.seed, Path(memory)) for name in arguments.sets
        ]
        # A process for each core works on a trial of its own; threads inside it would only wait for each other.
        with multiprocessing.get_context("spawn").Pool(arguments.workers, _one_thread) as pool:
            parts = max(1, arguments.workers // 2)
            pool.map(prepare, [(one, part, parts) for one in settings for part in range(parts)], chunksize=1)
            _note("embedded", started)
            waiting = pool.map_async(clean, settings, chunksize=1)
            sizes: dict[Literal["singles", "pairs"], int] = {
                "singles": len(SINGLES) * arguments.sample,
                "pairs": arguments.pairs,
            }
            trials = [
                trial for setting in settings for kind, size in sizes.items() for trial in _trials(setting, kind, size)
            ]
            outcomes: list[Outcome] = []
            for number, those in enumerate(pool.imap_unordered(plant, trials), 1):
                outcomes += those
                _note(f"trial {number} of {len(trials)}: {those[0].source}", started)
            cleans = waiting.get()
    outcomes.sort(key=lambda it: (it.source, it.kind, it.part))
    print(_report(arguments, outcomes, cleans))
    print(f"\n{time.perf_counter() - started:.0f} s with {arguments.workers} processes")
    if arguments.missed:
        arguments.missed.write_text(tables.missed_list(outcomes) + "\n", encoding="utf-8")


def _report(arguments: argparse.Namespace, outcomes: Sequence[Outcome], cleans: Sequence[Clean]) -> str:
    own = f"LeakageChecker, {arguments.embedder}"
    parts = [
        f"## Planted copies: {own}, seed {arguments.seed}, {arguments.sample} copies a cell\n",
        tables.recall_table(outcomes, arguments.sets),
        "\n## The same copies and other rules\n",
        tables.methods_table(outcomes, cleans, arguments.sets, own),
        "\n## Photos that nobody planted\n",
        tables.clean_table(cleans),
        "\n" + tables.flagged_list(cleans, longest=arguments.listed),
    ]
    for it in (it for it in cleans if it.source == "magnetic_tile"):
        train, test = load(arguments.data, it.source, seed=arguments.seed)
        parts.append("\n" + known.tile_groups(it.report, [one.id for one in train], [one.id for one in test]))
    if (arguments.data / "near_duplicates").is_dir():
        parts.append("\n## `near_duplicates`\n\n" + known.near_duplicates(arguments.data))
    return "\n".join(parts)


def _trials(setting: Setting, kind: Literal["singles", "pairs"], size: int) -> list[Trial]:
    """Share copies out evenly over as many trials as they need, at one copy of each photo in a trial."""
    train, _ = load(setting.data, setting.source, seed=setting.seed)
    parts = -(-size // min(MOST, len(train)))
    return [Trial(setting, kind, size // parts + (part < size % parts), part) for part in range(parts)]


def _one_thread() -> None:
    import cv2
    import torch

    os.cpu_count = lambda: 1  # type: ignore[assignment]
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # no bars of sixteen processes


def _note(what: str, started: float) -> None:
    print(f"{time.perf_counter() - started:6.0f} s  {what}", file=sys.stderr)


if __name__ == "__main__":
    main()
