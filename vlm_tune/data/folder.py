"""Reading class folders: `root/crack/1.jpg`, or `root/train/crack/1.jpg` beside `root/test/crack/2.jpg`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from vlm_tune._console import notice
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
    group_of = _grouper(group)
    files = _Files(root)
    examples: list[Example] = []
    splits: dict[str, SplitName] = {}
    strays = [] if (layout := _layout(root, task))[0][1] == root else list(files.directly_in(root))
    for split, parent in layout:
        strays += files.directly_in(parent)
        for folder in _folders(parent):
            label = task.canonical(folder.name, where=f"folder {folder}")
            for example_id in files.below(folder):
                image = root / example_id
                examples.append(Example(id=example_id, image=image, label=label, group=group_of(example_id)))
                if split is not None:
                    splits[example_id] = split
    if strays:
        raise DataError(
            f"{len(strays)} images in {root} lie outside the class folders (first: {strays[0]}); "
            "move them into a folder named after their class"
        )
    if not examples:
        raise DataError(_nothing_found(root, task, files.others))
    if group is not None and all(example.group is None for example in examples):
        raise DataError(f"group={group!r} fits no image id (first: {examples[0].id!r})")
    if files.others:
        notice(f"{root.name}: skipped {_listed(files.others)}")
    return sorted(examples, key=lambda example: example.id), splits


class _Files:
    """The images below a root as ids, and a count of what else lies there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.others: Counter[str] = Counter()

    def directly_in(self, folder: Path) -> Iterator[str]:
        """Yield the images in a folder itself."""
        yield from self._images(folder, sorted(entry.name for entry in folder.iterdir() if entry.is_file()))

    def below(self, folder: Path) -> Iterator[str]:
        """Yield the images in a folder and its folders, hidden ones left out."""
        for parent, folders, names in os.walk(folder):
            here = Path(parent)
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in folders:
                _refuse_link(here / name)
            yield from self._images(here, names)

    def _images(self, folder: Path, names: list[str]) -> Iterator[str]:
        for name in names:
            if name.startswith("."):
                continue
            ending = Path(name).suffix.lower()
            if ending not in EXTENSIONS:
                self.others[ending] += 1
                continue
            file = folder / name
            if file.is_symlink() and not file.resolve().is_relative_to(self.root):
                raise DataError(f"{file} is a link that leaves {self.root}; copy the image there")
            yield file.relative_to(self.root).as_posix()


def _layout(root: Path, task: Task) -> list[tuple[SplitName | None, Path]]:
    """Return the folders that hold class folders, each with the split it stands for."""
    folders = _folders(root)
    named = [(parse_split(folder.name), folder) for folder in folders]
    all_classes = all(_is_class(folder.name, task) for folder in folders)
    if all_classes or all(split is None for split, _ in named):
        return [(None, root)]
    if any(split is None for split, _ in named):
        mixed = ", ".join(folder.name for folder in folders[:8])
        raise DataError(f"{root} mixes split folders with others ({mixed}); keep either kind, not both")
    split, count = Counter(split for split, _ in named).most_common(1)[0]
    if count > 1:
        raise DataError(f"{root} has {count} folders that mean {split}; merge them")
    return list(named)


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


def _grouper(pattern: str | None) -> Callable[[str], str | None]:
    if pattern is None:
        return lambda _: None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"group={pattern!r} is not a regular expression: {error}") from error
    if compiled.groups != 1:
        raise DataError(f"group={pattern!r} needs exactly one (...), it has {compiled.groups}")

    def group_of(example_id: str) -> str | None:
        match = compiled.search(example_id)
        return match.group(1) if match else None

    return group_of


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
