"""What a check finds: by the proof of pixels, or by a fixed threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.leakage.cut import Cut
from vlm_tune.leakage.listing import key_pairs, mates, shared_keys, similar, thinned
from vlm_tune.leakage.pairs import LeakPair
from vlm_tune.leakage.proving import Prover
from vlm_tune.leakage.search import ACROSS, Found, Search
from vlm_tune.leakage.threshold import FixedRule

__all__ = ["Finding", "by_pixels", "by_threshold"]

EVALUATION: tuple[SplitName, ...] = ("validation", "test")

Similarities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        cut: From where on a similarity is remarkable.
        null: How alike training photos are to each other.
        nearest: How alike evaluation photos are to training photos.
        pairs: Pairs between splits, leaks first.
        within: Links between copies inside one split.
        keys: Group key to the ids of its examples, for the groups that leaks touch.
        warning: Why the result is not to be trusted.
    """

    cut: Cut
    null: Similarities
    nearest: Similarities
    pairs: tuple[LeakPair, ...]
    within: tuple[LeakPair, ...]
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    warning: str = ""


def by_pixels(dataset: Dataset, prover: Prover, *, shortlist: int) -> Finding:
    """Find copies between splits by their pixels, and what must move together with them."""
    search = Search(prover, shortlist=shortlist, home="train")
    looked_at = {splits: search.across(*splits) for splits in ACROSS if set(splits) <= prover.rows.keys()}
    copies = {
        splits: {pair: score for pair, score in found.items() if prover.is_copy(pair)}
        for splits, found in looked_at.items()
    }
    leaked = {pair[0] for found in copies.values() for pair in found}
    least = np.inf if search.cut.value is None else search.cut.value
    keys = shared_keys(dataset)
    straddling = {key: of for key, of in keys.items() if len(of) > 1}
    pairs = key_pairs(straddling, prover)
    for splits, found in looked_at.items():
        others = {pair: score for pair, score in found.items() if pair not in copies[splits]}
        kept = thinned(copies[splits]) | similar(others, prover, least=least, leaked=leaked)
        pairs += [prover.record(pair, splits, similarity=score) for pair, score in kept.items()]
    seeds = {row for found in copies.values() for pair in found for row in pair}
    seeds |= {row for of in straddling.values() for row in _rows(of, prover)}
    around, touched = search.around(seeds, mates(keys, prover.row_of))
    links: dict[SplitName | None, Found] = {split: found | around[split] for split, found in search.within()}
    within = [
        prover.record(pair, (split, split), similarity=score)
        for split, found in links.items()
        for pair, score in found.items()
    ]
    moving = {
        key: tuple(example.id for same in of.values() for example in same)
        for key, of in keys.items()
        if touched & _rows(of, prover) or len(of) > 1
    }
    nearest = np.concatenate([search.nearest(split) for split in EVALUATION if split in prover.rows])
    return Finding(search.cut, search.null, nearest, _ranked(pairs), _ranked(within), moving)


def by_threshold(prover: Prover, threshold: float) -> Finding:
    """Find the photos whose similarity reaches a number."""
    rule = FixedRule(prover, threshold)
    null = rule.null()
    passing = int((null >= threshold).sum())
    warning = (
        f"{passing:,} of {len(null):,} training photos ({passing / len(null):.0%}) are this similar to another "
        f"training photo: in this dataset a similarity of {threshold:g} does not mean a copy"
        if passing
        else ""
    )
    pairs = rule.pairs()
    leaked = {prover.row_of[name] for pair in pairs for name in (pair.a_id, pair.b_id)}
    nearest = np.concatenate([rule.nearest(split) for split in EVALUATION if split in prover.rows])
    cut = Cut(threshold, f"fixed threshold {threshold:g}: no proof by pixels is asked")
    return Finding(cut, null, nearest, _ranked(pairs), _ranked(rule.together(leaked)), warning=warning)


def _rows(of: Mapping[SplitName, list[Any]], prover: Prover) -> set[int]:
    return {prover.row_of[one.id] for same in of.values() for one in same if one.id in prover.row_of}


def _ranked(pairs: list[LeakPair]) -> tuple[LeakPair, ...]:
    return tuple(sorted(pairs, key=LeakPair.rank))
