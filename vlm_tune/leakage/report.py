"""What a leak check found, with the evidence for each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from vlm_tune import _console
from vlm_tune._files import read_json, write_json
from vlm_tune.data.dataset import Dataset
from vlm_tune.data.splitting import SplitName
from vlm_tune.errors import DataError, StorageError
from vlm_tune.images import data_uri, thumbnail
from vlm_tune.leakage import remedies
from vlm_tune.leakage.verify import Tier
from vlm_tune.records import Record

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["LEAKS", "TIERS", "LeakPair", "LeakageReport", "thumbnails"]

TIERS: Mapping[Tier, str] = {
    "identical": "the same bytes or the same pixels",
    "near_copy": "one photo made from the other: pixels agree in detail once aligned",
    "same_scene": "the same object in another shot",
    "similar_only": "as alike as few training photos are, but no copy",
}
"""Every tier and what it means, strongest first."""

LEAKS: frozenset[Tier] = frozenset({"identical", "near_copy"})
"""The tiers that count as leaks."""

MAX_THUMBNAILS = 400
MAX_ROWS = 20


class LeakPair(Record):
    """Two photos that look alike, and what their pixels prove."""

    a_id: str
    """The photo on the evaluation side (of test and validation, the test side)."""
    a_split: SplitName
    """Its split."""
    a_label: str
    """Its label."""
    b_id: str
    """The other photo."""
    b_split: SplitName
    """Its split."""
    b_label: str
    """Its label."""
    tier: Tier
    """What was proved."""
    similarity: float
    """Cosine of the centred embeddings, in the better orientation."""
    evidence: dict[str, Any] = Field(default_factory=dict)
    """`same` (`bytes` or `pixels`) for identical photos, else as `vlm_tune.leakage.verify.Proof` says."""

    @property
    def is_leak(self) -> bool:
        """Whether the same photo is in both splits."""
        return self.tier in LEAKS and self.a_split != self.b_split

    @property
    def is_conflict(self) -> bool:
        """Whether two copies of one photo carry different labels."""
        return self.tier in LEAKS and self.a_label != self.b_label

    @property
    def explanation(self) -> str:
        """The evidence in words, such as `mirrored, 92 % of a in b, detail agrees in 100 % of 61 blocks`."""
        seen = self.evidence
        if "same" in seen:
            return f"same {seen['same']}"
        if not seen:
            return "no alignment found"
        said = ["mirrored"] if seen["flipped"] else []
        said += [f"turned by {seen['rotation_deg']:.0f}°"] if abs(seen["rotation_deg"]) >= 1 else []
        said += [f"scaled by {seen['scale']:.2f}"] if abs(seen["scale"] - 1) >= 0.02 else []
        a_seen, b_seen = seen["overlap"]
        said += [f"{a_seen:.0%} of a in b, {b_seen:.0%} of b in a"] if min(a_seen, b_seen) < 0.97 else []
        said.append(f"detail agrees in {seen['agreement']:.0%} of {seen['blocks']} blocks")
        return ", ".join(said)

    def rank(self) -> tuple[int, float, str, str]:
        """Sort key: the strongest tier and the greatest similarity first."""
        return list(TIERS).index(self.tier), -self.similarity, self.a_id, self.b_id


class LeakageReport(Record):
    """What a leak check found: the pairs, how the cut was chosen, and how to put it right."""

    schema_version: int = 1
    """Version of the saved form."""
    dataset_fingerprint: str
    """The dataset that was checked."""
    embedder: str
    """What made the shortlist."""
    cut: float | None
    """Similarity from which a pair is remarkable; None where there are too few training photos to tell."""
    cut_reason: str
    """How the cut was chosen, in one sentence."""
    null: tuple[float, ...]
    """Similarity of training photos to their nearest other training photo."""
    nearest: tuple[float, ...]
    """Similarity of each evaluation photo to its nearest training photo."""
    num_compared: int
    """Pairs between splits whose embeddings were compared: all there are."""
    num_above_cut: int
    """Those whose similarity reaches the cut."""
    num_verified: int
    """Pairs whose pixels were compared."""
    pairs: tuple[LeakPair, ...]
    """Pairs between splits, leaks first; `similar_only` ones only where they reach the cut."""
    within: tuple[LeakPair, ...] = ()
    """Copies that leaked photos have inside their own split: they belong to the same group."""
    unreadable: Mapping[str, str] = Field(default_factory=dict)
    """Id of each photo that cannot be read, and why."""
    thumbnails: Mapping[str, str] = Field(default_factory=dict, repr=False)
    """Id to a small JPEG as a `data:` URI, for the photos of the first pairs."""

    @property
    def leaks(self) -> tuple[LeakPair, ...]:
        """The pairs that are the same photo in two splits."""
        return tuple(pair for pair in self.pairs if pair.is_leak)

    @property
    def leaked_test_ids(self) -> tuple[str, ...]:
        """Test photos with a copy in training or validation, sorted."""
        return tuple(sorted({pair.a_id for pair in self.leaks if pair.a_split == "test"}))

    @property
    def leaked_ids(self) -> tuple[str, ...]:
        """Test and validation photos with such a copy, sorted."""
        return tuple(sorted({pair.a_id for pair in self.leaks}))

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Ids that are copies of each other, directly or through others."""
        return remedies.components((pair.a_id, pair.b_id) for pair in (*self.leaks, *self.within))

    @property
    def conflicts(self) -> tuple[LeakPair, ...]:
        """Copies whose labels differ: at least one of them is wrong."""
        return tuple(pair for pair in (*self.leaks, *self.within) if pair.is_conflict)

    def resolve(self, dataset: Dataset, *, remedy: remedies.Remedy = "regroup") -> Dataset:
        """Return the dataset without the leaks.

        Args:
            dataset: The dataset that was checked.
            remedy: `regroup` moves leaked photos, and their copies beside them, into training; `drop_train`
                drops their copies there; `drop_test` drops the leaked photos.

        Raises:
            DataError: This is not the dataset that was checked, or the remedy is unknown.
            SplitError: Nothing would be left to evaluate on, or to train on.
        """
        if dataset.fingerprint != self.dataset_fingerprint:
            raise DataError(
                f"this report is about dataset {self.dataset_fingerprint}, not {dataset.fingerprint}: "
                "its examples, labels or splits differ; run check() on this one"
            )
        leaks = [(pair.a_id, pair.b_id) for pair in self.leaks]
        return remedies.resolve(dataset, leaks=leaks, groups=self.groups, remedy=remedy)

    def show(self) -> None:
        """Show the tiers and the pairs."""
        from vlm_tune.leakage.views import table

        renderable: RenderableType = table(self, max_rows=MAX_ROWS)
        _console.show(renderable, html=_console.to_html(renderable))

    def frame(self) -> pd.DataFrame:
        """Return a row for each pair: ids, splits, labels, tier, similarity, explanation."""
        import pandas as pd

        names = ["a_id", "a_split", "a_label", "b_id", "b_split", "b_label", "tier", "similarity"]
        rows = [(*(getattr(pair, name) for name in names), pair.explanation) for pair in self.pairs]
        return pd.DataFrame(rows, columns=[*names, "explanation"])

    def plot(self, *, max_pairs: int = 12) -> Figure:
        """Draw the similarities with the cut, and the first pairs side by side."""
        from vlm_tune.leakage.views import figure

        return figure(self, max_pairs=max_pairs)

    def save(self, path: Path | str) -> Path:
        """Write the report as JSON and return the path.

        Raises:
            StorageError: It cannot be written.
        """
        return write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path | str) -> LeakageReport:
        """Read a saved report.

        Raises:
            StorageError: The file is missing or is not a leakage report.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise StorageError(f"{path} is not a leakage report: {error.errors()[0]['msg']}") from error

    def counts(self) -> dict[Tier, int]:
        """Return how many pairs there are of each tier."""
        found = Counter(pair.tier for pair in self.pairs)
        return {tier: found[tier] for tier in TIERS}


def thumbnails(dataset: Dataset, pairs: Iterable[LeakPair]) -> dict[str, str]:
    """Return small pictures of the photos in the first pairs, as `data:` URIs."""
    ids = dict.fromkeys(name for pair in pairs for name in (pair.a_id, pair.b_id))
    return {name: data_uri(thumbnail(dataset.by_id(name).image), "image/jpeg") for name in list(ids)[:MAX_THUMBNAILS]}
