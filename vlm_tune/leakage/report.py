"""What a leak check found, with the evidence for each pair, and what can be done about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.errors import DataError, SplitError
from vlm_tune.images import data_uri, thumbnail
from vlm_tune.leakage import remedies
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.pairs import TIERS, LeakPair, conflicts, pair_frame
from vlm_tune.leakage.verify import Tier
from vlm_tune.records import SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["LeakageReport", "thumbnails"]

MAX_THUMBNAILS = 400
MAX_ROWS = 20


class LeakageReport(SavedRecord):
    """What a leak check found: the pairs, how the cut was chosen, and how to put it right."""

    saved_as: ClassVar[str] = "leakage report"
    schema_version: int = 2
    """Version of the saved form."""
    dataset_fingerprint: str
    """The dataset that was checked."""
    embedder: str
    """What made the shortlist."""
    threshold: float | None = None
    """The fixed similarity that decided, where one was asked for; None: the pixels did."""
    cut: float | None
    """Similarity from which a pair is remarkable; None where there are too few training photos to tell."""
    cut_reason: str
    """How the cut was chosen, in one sentence."""
    warning: str = ""
    """Why the result is not to be trusted: photos of training alone pass the threshold. Empty if all is well."""
    null: tuple[float, ...]
    """Similarity of training photos to their nearest other training photo that is no copy (of any, under a
    fixed threshold)."""
    nearest: tuple[float, ...]
    """Similarity of each distinct evaluation photo to its nearest training photo."""
    num_compared: int
    """Pairs between splits whose embeddings were compared: all there are."""
    num_verified: int
    """Pairs whose pixels were compared."""
    pairs: tuple[LeakPair, ...]
    """Pairs between splits, leaks first. Photos with equal pixels are one pair, and so are the examples of a
    group; of photos that are merely alike, those that reach the cut."""
    within: tuple[LeakPair, ...] = ()
    """Links between copies inside one split: many copies of one photo are a chain, not all their pairs. Under a
    fixed threshold, links between all that must stay together."""
    identical: tuple[tuple[str, ...], ...] = ()
    """Ids with equal pixels, a tuple for each photo that there is more than once."""
    group_keys: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Group key to the ids of its examples, for groups that leaks touch: they move as a whole."""
    places: Mapping[str, tuple[SplitName, str]] = Field(default_factory=dict, repr=False)
    """Split and label of each example that is mentioned above."""
    classes: Mapping[SplitName, Mapping[str, int]]
    """Examples of each class in each split."""
    unreadable: Mapping[str, str] = Field(default_factory=dict)
    """Id of each photo that cannot be read, and why."""
    thumbnails: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Id to a small JPEG as a `data:` URI, for the photos of the first pairs."""

    @cached_property
    def leaks(self) -> tuple[LeakPair, ...]:
        """The pairs that must not be in two splits: copies, and groups that the dataset's own keys name."""
        return tuple(pair for pair in self.pairs if pair.is_leak)

    @cached_property
    def leaked_test_ids(self) -> tuple[str, ...]:
        """Test photos with a copy, or examples of their group, in training or validation; sorted."""
        return tuple(name for name in self.leaked_ids if self.places[name][0] == "test")

    @cached_property
    def leaked_ids(self) -> tuple[str, ...]:
        """Test and validation photos of which that is true, sorted."""
        return tuple(sorted({name for pair in self.leaks for name in self.side(pair, "a")}))

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Ids that leaks and copies connect, directly or through others."""
        links = Links[str]((pair.a_id, pair.b_id) for pair in (*self.leaks, *self.within))
        for same in (*self.identical, *self.group_keys.values()):
            links.join_all(same)
        return links.groups()

    @cached_property
    def conflicts(self) -> tuple[LeakPair, ...]:
        """Copies whose labels differ, in two splits or one: at least one of them is wrong."""
        equal = ([(name, *self.places[name]) for name in same] for same in self.identical)
        return conflicts((*self.pairs, *self.within), equal)

    @property
    def proposals(self) -> tuple[remedies.Proposal, ...]:
        """What each strategy of `resolve` would do, in the order in which they are worth trying."""
        return remedies.propose(self)

    def resolve(self, dataset: Dataset, strategy: remedies.Strategy = "regroup", *, scenes: bool = False) -> Dataset:
        """Return the dataset without the leaks.

        Args:
            dataset: The dataset that was checked.
            strategy: `regroup` gives each group to one split: to training if it has a member there, or so that
                splits keep their sizes where that would take more than half of an evaluation split.
                `drop_train` drops the copies in training, `drop_test` the leaked photos.
            scenes: Whether pairs of one scene are leaks as well.

        Raises:
            DataError: This is not the dataset that was checked, there is no such strategy, or a class would
                lose its last training example.
            SplitError: Nothing would be left to evaluate on, or to train on.
        """
        if dataset.fingerprint != self.dataset_fingerprint:
            raise DataError(
                f"this report is about dataset {self.dataset_fingerprint}, not {dataset.fingerprint}: "
                "its examples, labels or splits differ; run check() on this one"
            )
        changes = remedies.changes(self, strategy, scenes=scenes)
        if not changes:
            return dataset
        dropped = [name for name, home in changes.items() if home is None]
        left = Counter(dataset.splits[name] for name in dataset.splits if name not in changes)
        left += Counter(home for home in changes.values() if home is not None)
        for split in self.classes:
            if not left[split]:
                raise SplitError(f"{strategy!r} would leave the {split} split empty; choose another strategy")
        moved = dataset.with_splits({name: home for name, home in changes.items() if home is not None})
        return moved.without(dropped) if dropped else moved

    def changes(self, strategy: remedies.Strategy = "regroup", *, scenes: bool = False) -> pd.DataFrame:
        """Return a row for each example that a strategy moves or drops, with the evidence.

        The columns are `example_id`, `label`, `split`, `to` (None: dropped) and those of the pair that is the
        reason: `other_id`, `tier`, `similarity`, `explanation`.
        """
        import pandas as pd

        reason = self._reasons()
        names = ["example_id", "label", "split", "to", "other_id", "tier", "similarity", "explanation"]
        rows = []
        for name, home in remedies.changes(self, strategy, scenes=scenes).items():
            split, label = self.places[name]
            pair = reason[name]
            other = pair.b_id if name != pair.b_id and split == pair.a_split else pair.a_id
            rows.append((name, label, split, home, other, pair.tier, pair.similarity, pair.explanation))
        return pd.DataFrame(rows, columns=names)

    def side(self, pair: LeakPair, which: Literal["a", "b"]) -> tuple[str, ...]:
        """Return the ids that one side of a pair stands for: those with equal pixels, or of the group."""
        name, split = (pair.a_id, pair.a_split) if which == "a" else (pair.b_id, pair.b_split)
        members = self.group_keys[pair.evidence["group"]] if pair.rule == "group" else self._same.get(name, (name,))
        return tuple(member for member in members if self.places[member][0] == split)

    def counts(self) -> dict[Tier, int]:
        """Return how many pairs there are of each tier."""
        found = Counter(pair.tier for pair in self.pairs)
        return {tier: found[tier] for tier in TIERS}

    def _rich(self) -> RenderableType:
        """Draw the tiers, the pairs, and what can be done."""
        from vlm_tune.leakage.views import table

        return table(self, max_rows=MAX_ROWS)

    def frame(self) -> pd.DataFrame:
        """Return a row for each pair: ids, splits, labels, tier, rule, similarity, explanation."""
        return pair_frame(self.pairs)

    def plot(self, *, max_pairs: int = 12) -> Figure:
        """Draw the similarities with the cut, and the first pairs side by side."""
        from vlm_tune.leakage.views import figure

        return figure(self, max_pairs=max_pairs)

    @cached_property
    def _same(self) -> dict[str, tuple[str, ...]]:
        return {name: same for same in self.identical for name in same}

    def _reasons(self) -> dict[str, LeakPair]:
        """The pair that speaks for each example: its own, that of its equals, or that of its group."""
        found: dict[str, LeakPair] = {}
        for pair in (*self.pairs, *self.within):
            for name in (pair.a_id, pair.b_id):
                found.setdefault(name, pair)
        for same in (*self.identical, *self.group_keys.values()):
            known = next((found[name] for name in same if name in found), None)
            if known is not None:
                found |= {name: known for name in same if name not in found}
        return found


def thumbnails(dataset: Dataset, pairs: Iterable[LeakPair], *, unreadable: Collection[str]) -> dict[str, str]:
    """Return small pictures of the photos in the first pairs, as `data:` URIs."""
    ids = dict.fromkeys(name for pair in pairs for name in (pair.a_id, pair.b_id) if name not in unreadable)
    return {name: data_uri(thumbnail(dataset.by_id(name).image), "image/jpeg") for name in list(ids)[:MAX_THUMBNAILS]}
