"""Which of the pairs that were looked at a report lists: all that matter, never all that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.pairs import LeakPair
from vlm_tune.leakage.proving import Prover
from vlm_tune.leakage.search import ACROSS, Found
from vlm_tune.records import Example

__all__ = ["key_pairs", "mates", "shared_keys", "similar", "thinned"]

PER_PHOTO = 5
"""Copies and scenes listed for one evaluation photo, beyond those that hold a group together."""

Keys = Mapping[str, Mapping[SplitName, list[Example]]]


def thinned(copies: Found) -> Found:
    """Choose among copies between two splits, so that many copies of one photo are not all their pairs.

    Each photo of the evaluation side keeps its first five, each of the other side its first, and what is
    connected stays connected: a remedy that deals with the pairs kept deals with all of them.
    """
    kept: Found = {}
    links = Links[int]()
    ours, theirs = Counter[int](), Counter[int]()
    for (x, y), score in sorted(copies.items(), key=lambda one: (-one[1], one[0])):
        if links.join(x, y) or ours[x] < PER_PHOTO or not theirs[y]:
            kept[x, y] = score
            ours[x] += 1
            theirs[y] += 1
    return kept


def similar(found: Found, prover: Prover, *, least: float, leaked: set[int]) -> Found:
    """Choose among pairs that are no copies: scenes, and the nearest of each photo if it reaches the cut.

    Args:
        found: The pairs, those of each photo with the most similar first.
        prover: What knows what was proved.
        least: The cut.
        leaked: Rows of evaluation photos that are copies; what else they look like does not matter.
    """
    kept: Found = {}
    scenes, others = Counter[int](), Counter[int]()
    for pair, score in sorted(found.items(), key=lambda one: (-one[1], one[0])):
        x = pair[0]
        if prover.tier(pair) == "same_scene":
            scenes[x] += 1
            if scenes[x] <= PER_PHOTO:
                kept[pair] = score
        elif x not in leaked and not others[x] and score >= least:
            others[x] += 1
            kept[pair] = score
    return kept


def shared_keys(dataset: Dataset) -> dict[str, dict[SplitName, list[Example]]]:
    """Return the group keys with their examples by split; only keys of more than one example."""
    found: dict[str, dict[SplitName, list[Example]]] = {}
    for example in dataset:
        if example.group is not None and (split := dataset.splits.get(example.id)) is not None:
            found.setdefault(example.group, {}).setdefault(split, []).append(example)
    return {key: of for key, of in found.items() if sum(map(len, of.values())) > 1}


def key_pairs(keys: Keys, prover: Prover) -> list[LeakPair]:
    """Return a pair for each group key and two splits that share it, however many examples these have."""
    pairs, row_of = [], prover.row_of
    for key, of in keys.items():
        for a_split, b_split in ACROSS:
            if a_split not in of or b_split not in of:
                continue
            a, b = (next((one for one in of[split] if one.id in row_of), of[split][0]) for split in (a_split, b_split))
            readable = a.id in row_of and b.id in row_of
            likeness = prover.cosines(np.array([row_of[a.id]]), np.array([row_of[b.id]])) if readable else [0.0]
            pairs.append(
                LeakPair(
                    a_id=a.id,
                    a_split=a_split,
                    a_label=a.label,
                    b_id=b.id,
                    b_split=b_split,
                    b_label=b.label,
                    tier="same_scene",
                    similarity=round(float(likeness[0]), 4),
                    rule="group",
                    copies=(len(of[a_split]), len(of[b_split])),
                    evidence={"group": key},
                )
            )
    return pairs


def mates(keys: Keys, row_of: Mapping[str, int]) -> dict[int, list[int]]:
    """Return for each row those that share a group key with it, each linked to the first of its group."""
    beside: dict[int, list[int]] = {}
    for of in keys.values():
        rows = [row_of[example.id] for same in of.values() for example in same if example.id in row_of]
        for row in rows[1:]:
            beside.setdefault(rows[0], []).append(row)
            beside.setdefault(row, []).append(rows[0])
    return beside
