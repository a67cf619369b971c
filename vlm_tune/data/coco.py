"""Reading COCO annotations as one question about each whole photo: its class, or its classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from vlm_tune._console import notice
from vlm_tune.data.coco_file import CocoFile, CocoPhoto, Mark, load_coco
from vlm_tune.data.groups import finder, is_pattern, require_fit
from vlm_tune.data.locating import Locator, require_files
from vlm_tune.data.splitting import SPLITS, SplitName, parse_split
from vlm_tune.errors import DataError, UnknownLabelError, nearest
from vlm_tune.records import Example, Record
from vlm_tune.task import Task

__all__ = ["MajorityVote", "Other", "Rule", "Source", "read_coco"]

Other = Literal["ignore", "exclude"]
"""What becomes of annotations of categories that the task does not name."""

Source = Path | str | Mapping[str, Path | str]
"""One path, or one for each split."""


class MajorityVote(Record):
    """A photo gets the class that most of its annotations have.

    Each example's metadata says how the vote went: `vote_share`, the winner's share of the votes; `vote_margin`,
    its lead over the second in the same unit; and `ambiguous`, whether that lead is no more than `margin`. In a
    tie the class that the task lists first wins, and the example is ambiguous.

    Examples:
        >>> MajorityVote(by="area", margin=0.2).ambiguous
        'keep'
    """

    by: Literal["count", "area"] = "count"
    """Whether each annotation has one vote, or a vote for each pixel of its area."""
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The largest lead that still is ambiguous, 0 to 1; 0 marks ties only."""
    ambiguous: Literal["keep", "drop"] = "keep"
    """Whether ambiguous photos stay in the dataset."""


Rule = Literal["only", "majority"] | MajorityVote
"""How a photo with several annotations gets one class."""

_Verdict = tuple[str, Mapping[str, object]] | None


def read_coco(
    path: Source, *, task: Task, images: Source | None, rule: Rule, other: Other, group: str | None
) -> tuple[list[Example], dict[str, SplitName]]:
    """Read examples from COCO files without opening any image; `Dataset.from_coco` says how.

    Returns:
        The examples in the order of the files, and the split of each id if there is a file for each split.

    Raises:
        DataError: A file is not COCO, a class of the task names no category, no photo is left, or photos that
            are kept are missing or lie outside the folder.
    """
    sources = _by_split(path, "path")
    folders = _by_split(images, "images") if isinstance(images, Mapping) else dict.fromkeys(sources, images)
    if lacking := [name for name in sources if name not in folders]:
        raise DataError(f"images= names no folder for {lacking[0]}; give one for each split, or one for all")
    files = {name: load_coco(source) for name, source in sources.items() if source is not None}
    judge = _Judge(task, files.values(), rule=rule, other=other)
    find = _groups(group, files.values())
    examples: list[Example] = []
    splits: dict[str, SplitName] = {}
    for name, file in files.items():
        part = _examples(file, judge, name=name, images=folders[name], find=find)
        examples += part
        if name is not None:
            splits.update({example.id: name for example in part})
    judge.tell(examples)
    _refuse_repeated(examples)
    if group is not None and is_pattern(group):
        require_fit(group, examples)
    return examples, splits


def _by_split(given: Source | None, option: str) -> dict[SplitName | None, Path | str | None]:
    if not isinstance(given, Mapping):
        return {None: given}
    named: dict[SplitName | None, Path | str | None] = {}
    for key, value in given.items():
        split = parse_split(key)
        if split is None or split in named:
            raise DataError(f"{option}={{{key!r}: ...}}: each key names one of the splits {', '.join(SPLITS)}, once")
        named[split] = value
    if not named:
        raise DataError(f"{option}={{}} names no file")
    return named


class _Judge:
    """Decides each photo's label, and counts what it leaves out and why."""

    def __init__(self, task: Task, files: Iterable[CocoFile], *, rule: Rule, other: Other) -> None:
        self.task = task
        self.vote = MajorityVote() if rule == "majority" else rule
        self.other = other
        self.out: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.classes = self._named({name: None for file in files for name in file.categories})

    def label(self, photo: CocoPhoto, where: str) -> _Verdict:
        """Return a photo's label and what the vote said, or None to leave it out."""
        named = [mark for mark in photo.marks if mark.category in self.classes]
        strange = {mark.category for mark in photo.marks if mark.category not in self.classes}
        self.others.update(strange)
        if strange and self.other == "exclude":
            return self._drop("with other categories")
        if self.task.multi_label:
            return self.task.join(self.classes[mark.category] for mark in named), {}
        if not named:
            return self._drop("with other categories only" if photo.marks else "without annotations")
        if isinstance(self.vote, MajorityVote):
            return self._majority(named, self.vote, where)
        if len(found := {self.classes[mark.category] for mark in named}) > 1:
            return self._drop("with several classes")
        return found.pop(), {}

    def tell(self, examples: Sequence[Example]) -> None:
        """Say what was left out; refuse when nothing is left."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.out.most_common())
        if not examples:
            raise DataError(f"no photo is left: {reasons or 'the files list none'}; change the task, rule= or other=")
        if reasons:
            notice(f"COCO: {len(examples)} photos kept, left out: {reasons}")
        if self.others and self.other == "ignore":
            listed = ", ".join(f"{name} ({count})" for name, count in self.others.most_common(8))
            notice(f"COCO: ignored, since the task does not name them: {listed}; other='exclude' drops their photos")

    def _named(self, categories: Iterable[str]) -> dict[str, str]:
        """Return the class of each category that the task names; every class must have one."""
        known = tuple(categories)
        classes: dict[str, str] = {}
        for name in known:
            try:
                members = self.task.members(self.task.canonical(name))
            except UnknownLabelError:
                continue
            if len(members) == 1:
                classes[name] = members[0]
        for label in self.task.classes:
            if label not in classes.values():
                close = nearest(label, known)
                hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
                raise DataError(
                    f"class {label!r} names no category (categories: {', '.join(known) or 'none'}){hint}; "
                    "name it in the task as the file does, or list the file's names as its aliases"
                )
        return classes

    def _majority(self, marks: Sequence[Mark], vote: MajorityVote, where: str) -> _Verdict:
        votes = self._votes(marks, vote, where)
        # Python's sort is stable: in a tie the class that the task lists first stays first.
        ranked = sorted((label for label in self.task.classes if votes[label]), key=lambda label: -votes[label])
        total = sum(votes.values())
        second = votes[ranked[1]] if len(ranked) > 1 else 0
        margin = (votes[ranked[0]] - second) / total
        ambiguous = margin <= vote.margin
        if ambiguous and vote.ambiguous == "drop":
            return self._drop("ambiguous")
        share = votes[ranked[0]] / total
        return ranked[0], {"vote_share": share, "vote_margin": margin, "ambiguous": ambiguous}

    def _votes(self, marks: Sequence[Mark], vote: MajorityVote, where: str) -> Mapping[str, float]:
        votes: dict[str, float] = dict.fromkeys(self.task.classes, 0.0)
        if vote.by == "area":
            for mark in marks:
                if mark.area is None:
                    raise DataError(f"{where}: an annotation has neither area nor bbox; vote by='count'")
                votes[self.classes[mark.category]] += mark.area
        if not any(votes.values()):  # by number, and where nothing marked has an area
            for mark in marks:
                votes[self.classes[mark.category]] += 1
        return votes

    def _drop(self, reason: str) -> _Verdict:
        self.out[reason] += 1
        return None


def _examples(
    file: CocoFile,
    judge: _Judge,
    *,
    name: SplitName | None,
    images: Path | str | None,
    find: Callable[[CocoPhoto], str | None],
) -> list[Example]:
    verdicts = [(photo, judge.label(photo, f"{file.path}, {photo.file_name!r}")) for photo in file.photos]
    kept = [(photo, *verdict) for photo, verdict in verdicts if verdict is not None]
    if not kept:
        return []
    folder = _folder(file.path, kept[0][0].file_name) if images is None else images
    locator = Locator(folder, option="images")
    prefix = "" if name is None else f"{name}/"
    examples = []
    for photo, label, vote in kept:
        example_id, image = locator.find(photo.file_name, where=str(file.path))
        examples.append(
            Example(
                id=prefix + example_id,
                image=image,
                label=label,
                group=find(photo),
                metadata={**photo.fields, **vote},
            )
        )
    require_files(examples, source=file.path, folder=locator.folder, option="images")
    return examples


def _folder(path: Path, file_name: str) -> Path:
    """Return the folder that holds a file's first photo: beside it, or where COCO's own layout has it."""
    here = path.resolve().parent
    name = path.stem.removeprefix("instances_")
    for folder in (here, here / "images", here.parent / name, here.parent / "images" / name, here.parent / "images"):
        if (folder / file_name).is_file():
            return folder
    return here


def _groups(group: str | None, files: Iterable[CocoFile]) -> Callable[[CocoPhoto], str | None]:
    if group is None:
        return lambda _: None
    known = dict.fromkeys(key for file in files for photo in file.photos for key in photo.fields)
    if group in known:
        return lambda photo: None if photo.fields.get(group) in (None, "") else str(photo.fields[group])
    if is_pattern(group):
        find = finder(group)
        return lambda photo: find(photo.file_name)
    raise DataError(
        f"group={group!r} is neither a field of the images ({', '.join(known)}) nor a pattern with one (...)"
    )


def _refuse_repeated(examples: Sequence[Example]) -> None:
    first: dict[str, str] = {}
    for example in examples:
        image = str(example.image)
        if image in first:
            raise DataError(f"photo {image} is listed twice, as {first[image]!r} and {example.id!r}")
        first[image] = example.id
