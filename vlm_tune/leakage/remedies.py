"""What to do about leaks: give each group to one split, or drop one side of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from vlm_tune.data.splitting import SPLITS, SplitName
from vlm_tune.errors import DataError
from vlm_tune.leakage.links import Links
from vlm_tune.leakage.pairs import LeakPair
from vlm_tune.records import Record

if TYPE_CHECKING:
    from vlm_tune.leakage.report import LeakageReport

__all__ = ["Changes", "Proposal", "Strategy", "changes", "propose"]

Strategy = Literal["regroup", "drop_train", "drop_test"]
"""Give whole groups to one split, drop the copies in training, or drop the leaked photos."""

Changes = dict[str, SplitName | None]
"""Example id to the split it moves to, or to None where it is dropped."""


MOST_CLASSES = 6
"""Classes named in a proposal's sentence."""


class Proposal(Record):
    """What one strategy would do, before it is done."""

    strategy: Strategy
    """What to pass to `resolve`."""
    moved: Mapping[SplitName, int]
    """How many examples each split gets from others."""
    dropped: Mapping[SplitName, int]
    """How many examples of each split are dropped."""
    classes: Mapping[SplitName, Mapping[str, int]]
    """Examples of each class that each split has afterwards."""
    lost: Mapping[str, int]
    """Class to test photos it has less afterwards (more, where negative)."""
    problem: str = ""
    """Why it cannot be applied; empty where it can."""

    @property
    def sizes(self) -> dict[SplitName, int]:
        """Examples that each split has afterwards."""
        return {split: sum(of.values()) for split, of in self.classes.items()}

    @property
    def test_size(self) -> int:
        """Test photos that are left to judge on."""
        return self.sizes.get("test", 0)

    @property
    def sentence(self) -> str:
        """The proposal in words."""
        said = [f"move {count:,} to {split}" for split, count in self.moved.items()]
        said += [f"drop {count:,} of {split}" for split, count in self.dropped.items()]
        after = ", ".join(f"{split} {count:,}" for split, count in self.sizes.items())
        changed = sorted((one for one in self.lost.items() if one[1]), key=lambda one: -abs(one[1]))
        lost = ", ".join(f"{label} {-count:+,}" for label, count in changed[:MOST_CLASSES])
        lost += f" and {len(changed) - MOST_CLASSES} more classes" if len(changed) > MOST_CLASSES else ""
        text = f"{', '.join(said) or 'nothing to do'}; leaves {after}"
        text += f" (test: {lost})" if lost else ""
        return f"{text}. Not possible: {self.problem}" if self.problem else text


def propose(report: LeakageReport, *, scenes: bool = False) -> tuple[Proposal, ...]:
    """Return what each strategy would do, in the order in which they are worth trying."""
    return tuple(_proposal(report, strategy, scenes=scenes) for strategy in get_args(Strategy))


def changes(report: LeakageReport, strategy: Strategy, *, scenes: bool = False) -> Changes:
    """Return which examples move and which are dropped.

    Args:
        report: What was found.
        strategy: `regroup` gives each group of copies to training if it has a member there, to validation
            otherwise; where this would take more than half of an evaluation split, groups are dealt out, the
            largest first, so that every split keeps about its size and classes. `drop_train` drops the second of each
            pair, `drop_test` the first.
        scenes: Whether pairs of one scene are leaks as well.

    Raises:
        DataError: There is no such strategy.
    """
    if strategy not in get_args(Strategy):
        raise DataError(f"unknown strategy {strategy!r}; choose one of {', '.join(get_args(Strategy))}")
    leaks = [pair for pair in report.pairs if pair.is_leak or (scenes and pair.tier == "same_scene")]
    if strategy == "regroup":
        return _regrouped(report, leaks)
    side: Literal["a", "b"] = "b" if strategy == "drop_train" else "a"
    return {example_id: None for pair in leaks for example_id in report.side(pair, side)}


def _regrouped(report: LeakageReport, leaks: Sequence[LeakPair]) -> Changes:
    links = Links[str]((pair.a_id, pair.b_id) for pair in (*leaks, *report.within))
    for same in (*report.identical, *report.group_keys.values()):
        links.join_all(same)
    leaky = {links.root(pair.a_id) for pair in leaks}
    groups = [group for group in links.groups() if links.root(group[0]) in leaky]
    home_of: list[SplitName] = []
    for group in groups:
        splits = {report.places[member][0] for member in group}
        home_of.append("train" if "train" in splits else "validation")
    moves = _moves(report, groups, home_of)
    leaving = Counter(report.places[member][0] for member in moves)
    if any(2 * leaving[split] > _size(report, split) for split in ("validation", "test") if leaving[split]):
        moves = _moves(report, *_dealt(report, groups))
    return moves


def _moves(report: LeakageReport, groups: Iterable[Sequence[str]], home_of: Iterable[SplitName]) -> Changes:
    pairs = ((member, home) for group, home in zip(groups, home_of, strict=True) for member in group)
    return {member: home for member, home in pairs if report.places[member][0] != home}


def _dealt(report: LeakageReport, groups: Iterable[Sequence[str]]) -> tuple[list[Sequence[str]], list[SplitName]]:
    """Give each group, the largest first, to that split of its own that lacks most of the group's classes."""
    ordered = sorted(groups, key=lambda group: (-len(group), group))
    missing = Counter(report.places[member] for group in ordered for member in group)
    home_of: list[SplitName] = []
    for group in ordered:
        own = {report.places[member][0] for member in group}
        labels = Counter(report.places[member][1] for member in group)

        def lacks(split: SplitName, labels: Counter[str] = labels) -> float:
            there = report.classes[split]
            return sum(count * missing[split, label] / (there.get(label, 0) or 1) for label, count in labels.items())

        home = max((split for split in SPLITS if split in own), key=lacks)
        missing.subtract({(home, label): count for label, count in labels.items()})
        home_of.append(home)
    return ordered, home_of


def _proposal(report: LeakageReport, strategy: Strategy, *, scenes: bool) -> Proposal:
    plan = changes(report, strategy, scenes=scenes)
    after = {split: Counter(of) for split, of in report.classes.items()}
    moved, dropped = Counter[SplitName](), Counter[SplitName]()
    for example_id, home in plan.items():
        split, label = report.places[example_id]
        after[split][label] -= 1
        if home is None:
            dropped[split] += 1
        else:
            after.setdefault(home, Counter())[label] += 1
            moved[home] += 1
    test = report.classes.get("test", {})
    return Proposal(
        strategy=strategy,
        moved=dict(moved),
        dropped=dict(dropped),
        classes={split: dict(of) for split, of in after.items()},
        lost={label: count - after["test"][label] for label, count in test.items()},
        problem=_problem(after),
    )


def _problem(after: Mapping[SplitName, Counter[str]]) -> str:
    for split, of in after.items():
        if not sum(of.values()):
            return f"the {split} split would be empty"
    for split in ("test", "validation"):
        for label, count in after.get(split, Counter[str]()).items():
            if count > 0 and after["train"][label] <= 0:
                return f"class {label!r} would be in {split} but not in training"
    return ""


def _size(report: LeakageReport, split: SplitName) -> int:
    return sum(report.classes[split].values())
