"""Reading class folders: `root/crack/1.jpg`, or `root/train/crack/1.jpg` beside `root/test/crack/2.jpg`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vlm_tune._console import notice
from vlm_tune.data.groups import finder, require_fit
from vlm_tune.data.splitting import SplitName, parse_split
from vlm_tune.errors import DataError, UnknownLabelError
from vlm_tune.images import EXTENSIONS
from vlm_tune.records import Example
from vlm_tune.task import Task

__all__ = ["read_folder"]


def read_folder(
    path: Path | str, *, task: Task, group: str | None = None
) -> tuple[list[Example], dict[str, SplitName]]:
    """Index a folder of images without opening any; `Dataset.from_folder` says what counts as what.

    Returns:
        The examples sorted by id, and the split of each id that has one.

    Raises:
        DataError: There is no folder, no image in it, an image outside the class folders, or a link that
            leaves it; or `group` is not a pattern with one capture group, or fits no image.
        UnknownLabelError: A folder is not named after a class or one of its aliases.
    """
    root = Path(path).resolve()
    if not root.is_dir():
        raise DataError(f"{path} is not a folder")
    group_of = _no_group if group is None else finder(group)
    files = _Files(root)
    examples: list[Example] = []
    splits: dict[str, SplitName] = {}
    strays: list[str] = []
    for place in _places(root, task):
        if place.label is None:
            strays += files.directly_in(place.folder)
            continue
        for example_id in files.below(place.folder):
            image = root / example_id
            examples.append(Example(id=example_id, image=image, label=place.label, group=group_of(example_id)))
            if place.split is not None:
                splits[example_id] = place.split
    if strays:
        raise DataError(
            f"{len(strays)} images in {root} lie outside the class folders (first: {strays[0]}); "
            "move them into a folder named after their class"
        )
    if not examples:
        raise DataError(_nothing_found(root, task, files.others))
    if group is not None:
        require_fit(group, examples)
    if files.others:
        notice(f"{root.name}: skipped {_listed(files.others)}")
    return sorted(examples, key=lambda example: example.id), splits


class _Files:
    """The images below a root as ids, and a count of what else lies there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: Counter[str] = Counter()

    def directly_in(self, folder: Path) -> Iterator[str]:
        """Yield the images in a folder itself, sorted."""
        with os.scandir(folder) as entries:
            files = sorted((entry for entry in entries if entry.is_file()), key=lambda entry: entry.name)
        prefix = self._prefix(folder)
        yield from (prefix + entry.name for entry in files if self._is_image(entry))

    def below(self, folder: Path) -> Iterator[str]:
        """Yield the images in a folder and its folders, hidden ones left out."""
        # Plain strings and directory entries: a path object for every file would take most of the time.
        waiting = [(str(folder), self._prefix(folder))]
        while waiting:
            here, prefix = waiting.pop()
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        _refuse_link(Path(entry.path))
                        waiting.append((entry.path, f"{prefix}{entry.name}/"))
                    elif self._is_image(entry):
                        yield prefix + entry.name

    def _prefix(self, folder: Path) -> str:
        return "" if folder == self.root else folder.relative_to(self.root).as_posix() + "/"

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        if entry.name.startswith("."):
            return False
        ending = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - faster
        if ending not in EXTENSIONS:
            self.others[ending] += 1
            return False
        if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(self.root):
            raise DataError(f"{entry.path} is a link that leaves {self.root}; copy the image there")
        return True


class _Place(NamedTuple):
    """A folder: of images of one class, or with None for a class one in which no image should lie."""

    split: SplitName | None
    label: str | None
    folder: Path


def _places(root: Path, task: Task) -> Iterator[_Place]:
    """Yield what each folder is for: `train/crack`, `crack/train` or plain `crack`."""
    yield _Place(None, None, root)
    for split, parent in _split_folders(root, task):
        if parent != root:
            yield _Place(split, None, parent)
        folders = _folders(parent)
        labels = [task.canonical(folder.name, where=f"folder {folder}") for folder in folders]
        inner = [_only_splits(folder) if split is None else [] for folder in folders]
        if any(inner) and not all(inner):
            whole, cut = folders[inner.index([])], folders[next(i for i, parts in enumerate(inner) if parts)]
            raise DataError(f"{cut} holds split folders and {whole} does not; cut all classes or none")
        for folder, label, parts in zip(folders, labels, inner, strict=True):
            if parts:
                yield _Place(None, None, folder)
                yield from (_Place(own, label, part) for own, part in parts)
            else:
                yield _Place(split, label, folder)


def _split_folders(root: Path, task: Task) -> list[tuple[SplitName | None, Path]]:
    """Return the folders that hold class folders, each with the split it stands for."""
    folders = _folders(root)
    named = [(parse_split(folder.name), folder) for folder in folders]
    all_classes = all(_is_class(folder.name, task) for folder in folders)
    if all_classes or all(split is None for split, _ in named):
        return [(None, root)]
    if any(split is None for split, _ in named):
        mixed = ", ".join(folder.name for folder in folders[:8])
        raise DataError(f"{root} mixes split folders with others ({mixed}); keep either kind, not both")
    _refuse_twice(root, named)
    return list(named)


def _only_splits(folder: Path) -> list[tuple[SplitName, Path]]:
    """Return the split folders in a class folder, if it has at least two and no other folder."""
    inner = [(parse_split(part.name), part) for part in _folders(folder)]
    known = [(split, part) for split, part in inner if split is not None]
    if len(known) < 2 or len(known) < len(inner):
        return []
    _refuse_twice(folder, known)
    return known


def _refuse_twice(parent: Path, named: Sequence[tuple[SplitName | None, Path]]) -> None:
    split, count = Counter(split for split, _ in named).most_common(1)[0]
    if count > 1:
        raise DataError(f"{parent} has {count} folders that mean {split}; merge them")


def _folders(parent: Path) -> list[Path]:
    folders = sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for folder in folders:
        _refuse_link(folder)
    return folders


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise DataError(f"{folder} is a link to another folder; put the folder itself there")


def _is_class(name: str, task: Task) -> bool:
    try:
        task.canonical(name)
    except UnknownLabelError:
        return False
    return True


def _no_group(_: str) -> str | None:
    return None


def _nothing_found(root: Path, task: Task, others: Counter[str]) -> str:
    example = f"{task.classes[0]}/photo.jpg"
    found = f"; it holds {_listed(others)}" if others else ""
    return (
        f"{root} holds no image{found}. Looked for {', '.join(sorted(EXTENSIONS))} in class folders "
        f"({example}) or in split folders with class folders (train/{example})"
    )


def _listed(others: Counter[str]) -> str:
    kinds = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in others.most_common())
    return f"files that are not images ({kinds})"
