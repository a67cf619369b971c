"""One pair of photos that look alike, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vlm_tune.data.splitting import SplitName
from vlm_tune.leakage.verify import Tier
from vlm_tune.records import Record

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COPIES", "TIERS", "LeakPair", "Rule", "conflicts", "pair_frame"]

Rule = Literal["pixels", "group", "threshold"]
"""What put a pair on the list: its pixels, a group key that its examples share, or a fixed threshold."""

TIERS: Mapping[Tier, str] = {
    "identical": "the same bytes or the same pixels",
    "near_copy": "one photo made from the other: pixels agree in detail once aligned",
    "same_scene": "the same object in another shot, or one group in two splits",
    "similar_only": "as alike as few training photos are, but no copy",
}
"""Every tier and what it means, strongest first."""

COPIES: frozenset[Tier] = frozenset({"identical", "near_copy"})
"""The tiers of photos that are copies of each other."""


class LeakPair(Record):
    """Two photos that look alike, and what their pixels prove."""

    a_id: str
    """The photo on the evaluation side (of test and validation, the test side)."""
    a_split: SplitName | None
    """Its split."""
    a_label: str
    """Its label."""
    b_id: str
    """The other photo."""
    b_split: SplitName | None
    """Its split."""
    b_label: str
    """Its label."""
    tier: Tier
    """What was proved."""
    similarity: float
    """Cosine of the embeddings, in the better orientation; centred, except under a fixed threshold."""
    rule: Rule = "pixels"
    """What put the pair on the list."""
    copies: tuple[int, int] = (1, 1)
    """Examples in the split of `a` that the pair stands for, `a` among them, and the same for `b`: those with
    the very same pixels, or those of the group."""
    evidence: Mapping[str, Any] = Field(default_factory=dict)
    """`same` (`bytes` or `pixels`) and their `count` for identical photos, `group` for a shared group key, else
    as `vlm_tune.leakage.verify.Proof` says, and `sizes`: width and height of both photos."""

    @property
    def is_copy(self) -> bool:
        """Whether one photo was made from the other."""
        return self.tier in COPIES

    @property
    def is_leak(self) -> bool:
        """Whether the pair joins what must not be in two splits: copies, a group, or what a threshold says."""
        return self.a_split != self.b_split and (self.is_copy or self.rule != "pixels")

    @property
    def is_conflict(self) -> bool:
        """Whether two copies of one photo carry different labels."""
        return self.is_copy and self.a_label != self.b_label

    @property
    def explanation(self) -> str:
        """The evidence in words, such as `mirrored, 92% of each in the other, detail agrees in 100% of 61 blocks`."""
        seen, (a_count, b_count) = self.evidence, self.copies
        if "group" in seen:
            return f"both of group {seen['group']!r}: {a_count:,} in {self.a_split}, {b_count:,} in {self.b_split}"
        if "same" in seen:
            said = [f"same {seen['same']}"]
            said += [f"as in {seen['count']:,} photos"] if seen["count"] > 2 else []
        elif "agreement" not in seen:
            said = ["no alignment found"]
        elif self.tier == "similar_only":
            said = [f"best alignment agrees in {seen['agreement']:.0%} of {seen['blocks']} blocks"]
        else:
            said = _alignment(seen)
        if self.rule == "threshold":
            said.append("called a leak by the threshold alone")
        if "same" not in seen and max(self.copies) > 1:
            said.append(f"in {a_count:,} and {b_count:,} examples with these very pixels")
        return ", ".join(said)

    def rank(self) -> tuple[int, int, float, str, str]:
        """Sort key: leaks first, of these the strongest tier and the greatest similarity."""
        return not self.is_leak, list(TIERS).index(self.tier), -self.similarity, self.a_id, self.b_id


def conflicts(
    pairs: Sequence[LeakPair], equal: Iterable[Sequence[tuple[str, SplitName | None, str]]]
) -> tuple[LeakPair, ...]:
    """Return the pairs whose labels differ, and one for each set of equal photos where no pair shows it.

    Args:
        pairs: The pairs listed; one of them stands for all photos with equal pixels.
        equal: Id, split and label of the photos in each such set.
    """
    found = [pair for pair in pairs if pair.is_conflict]
    shown = {name for pair in found for name in (pair.a_id, pair.b_id)}
    for (a, a_split, a_label), *others in equal:
        other = next((one for one in others if one[2] != a_label), None)
        if other is None or a in shown or shown & {name for name, _, _ in others}:
            continue
        b, b_split, b_label = other
        evidence = {"same": "pixels", "count": 1 + len(others)}
        found.append(
            LeakPair(
                a_id=a,
                a_split=a_split,
                a_label=a_label,
                b_id=b,
                b_split=b_split,
                b_label=b_label,
                tier="identical",
                similarity=1.0,
                evidence=evidence,
            )
        )
    return tuple(found)


def pair_frame(pairs: Iterable[LeakPair]) -> pd.DataFrame:
    """Return a row for each pair."""
    import pandas as pd

    names = ["a_id", "a_split", "a_label", "b_id", "b_split", "b_label", "tier", "rule", "similarity"]
    rows = [(*(getattr(pair, name) for name in names), *pair.copies, pair.explanation) for pair in pairs]
    return pd.DataFrame(rows, columns=[*names, "a_copies", "b_copies", "explanation"])


def _alignment(seen: Mapping[str, Any]) -> list[str]:
    said = ["mirrored"] if seen["flipped"] else []
    said += [f"turned by {seen['rotation_deg']:.0f}°"] if abs(seen["rotation_deg"]) >= 1 else []
    said += [f"scaled by {seen['scale']:.2f}"] if abs(seen["scale"] - 1) >= 0.02 else []
    a_seen, b_seen = seen["overlap"]
    if abs(a_seen - b_seen) < 0.02:
        said += [f"{a_seen:.0%} of each in the other"] if a_seen < 0.97 else []
    else:
        said.append(f"{a_seen:.0%} of the first in the second, {b_seen:.0%} the other way round")
    return [*said, f"detail agrees in {seen['agreement']:.0%} of {seen['blocks']} blocks"]
