"""Which photos of a dataset are copies of each other, whatever their splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm_tune.data.splitting import SplitName
from vlm_tune.embedding import Embedder
from vlm_tune.leakage import find_copies
from vlm_tune.profiling.records import CopyGroup
from vlm_tune.records import Example

__all__ = ["copy_groups"]


def copy_groups(
    examples: Sequence[Example],
    splits: Mapping[str, SplitName],
    *,
    embedder: Embedder | None = None,
    cache_dir: Path | None = None,
) -> tuple[CopyGroup, ...]:
    """Return the groups of copies among readable examples, the largest first.

    Args:
        examples: The photos.
        splits: Example id to split; ids may be missing.
        embedder: What makes the shortlist, as for `LeakageChecker`.
        cache_dir: Where embeddings are kept between runs.
    """
    if len(examples) < 2:
        return ()
    found = find_copies(examples, embedder=embedder, cache_dir=cache_dir)
    edited = {name for pair in found.pairs if pair.tier != "identical" for name in (pair.a_id, pair.b_id)}
    places = {example.id: place for place, example in enumerate(examples)}
    groups = []
    for members in found.groups:
        ids = tuple(sorted(members, key=places.__getitem__))
        groups.append(
            CopyGroup(
                kind="identical" if edited.isdisjoint(ids) else "near_copy",
                ids=ids,
                labels=tuple(examples[places[name]].label for name in ids),
                splits=tuple(splits.get(name) for name in ids),
            )
        )
    return tuple(sorted(groups, key=lambda group: (-len(group.ids), places[group.ids[0]])))
