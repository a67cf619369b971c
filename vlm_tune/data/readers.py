"""The ways into a dataset: one class method for each kind of source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from vlm_tune.data.examples import Examples
from vlm_tune.errors import DataError
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.data.coco import Other, Rule, Source
    from vlm_tune.data.hugging_face import HfSource

__all__ = ["Readers"]


class Readers(Examples):
    """What a `Dataset` reads from; no reader opens an image that is a file."""

    @classmethod
    def from_folder(cls, path: Path | str, *, task: Task, group: str | None = None) -> Self:
        """Read class folders, or split folders (`train`, `val`, `test`) that each hold class folders.

        Class folders carry a class's name or alias; split folders any of the usual names in any case, and they
        may also lie inside every class folder. Images lie anywhere below. Hidden files and files with other
        endings are skipped. Ids are paths relative to `path` with forward slashes.

        Args:
            path: The folder.
            task: The question; its classes decide which folders are valid.
            group: Regular expression with one capture group, searched in each id: what it captures is the
                example's group, such as `"part([0-9]+)"`.

        Raises:
            DataError: There is no folder, no image in it, an image outside the class folders, or a link that
                leaves it; or `group` is not such a pattern, or fits no image.
            UnknownLabelError: A folder is not named after a class.
        """
        from vlm_tune.data.folder import read_folder

        examples, splits = read_folder(path, task=task, group=group)
        return cls(examples, task=task, splits=splits)

    @classmethod
    def from_table(
        cls,
        path: Path | str,
        *,
        task: Task,
        image: str = "image",
        label: str = "label",
        split: str = "split",
        group: str = "group",
        root: Path | str | None = None,
    ) -> Self:
        """Read a CSV, JSON Lines or Parquet table with one row for each image.

        Args:
            path: The table.
            task: The question.
            image: Column with the image's path, relative to `root`; the relative path becomes the id.
            label: Column with the class or an alias; for a multi-label task with a list of them, in JSON Lines
                and Parquet, or with their names separated by commas, or `none`.
            split: Column with the split; may be absent, and a cell may be empty.
            group: Column with the group; may be absent, and a cell may be empty. Or a regular expression with
                one capture group that finds the group in the id.
            root: The folder that holds all images; the table's own folder by default.

        All other columns become the examples' metadata.

        Raises:
            DataError: The table cannot be read, is empty, lacks a column, has labels of several types, or lists
                images that are missing or lie outside `root`.
            UnknownLabelError: A label is not one of the classes.
        """
        from vlm_tune.data.table import Columns, read_table

        columns = Columns(image=image, label=label, split=split, group=group)
        examples, splits = read_table(path, task=task, columns=columns, root=root)
        return cls(examples, task=task, splits=splits)

    @classmethod
    def from_coco(
        cls,
        path: Source,
        *,
        task: Task,
        images: Source | None = None,
        rule: Rule = "only",
        other: Other = "ignore",
        group: str | None = None,
    ) -> Self:
        """Read COCO detection or segmentation files as one question about each whole photo.

        The task chooses the categories: by name or, to rename and merge them, by alias. Each of its classes must
        name one. For a multi-label task a photo's label lists the classes marked in it, or says `none`. For any
        other, photos without a marked class are left out, and `rule` decides about those with several. An
        annotation of a crowd (`iscrowd`) counts like any other: the class is there.

        Ids are the photos' file names, after the split's name where there is a file for each split. What the
        file says about a photo becomes its metadata. A line on stderr counts what was left out, and why.

        Args:
            path: The file, or split to file, such as `{"train": "train.json", "test": "test.json"}`.
            task: The question.
            images: The folder that the file names are relative to, or split to folder. By default the file's
                own folder or, in COCO's layout, `../train2017` for `instances_train2017.json`.
            rule: `"only"` keeps photos whose annotations have one class; `"majority"`, or a `MajorityVote` with
                other settings, gives each photo the class that most of its annotations have.
            other: Whether annotations of categories that the task does not name are ignored, or exclude their
                photo.
            group: Field of the file's images, or a regular expression with one capture group that finds the
                group in the file name.

        Raises:
            DataError: A file is missing, truncated or not shaped like COCO, refers to what it does not list, or
                leaves no photo; a class names no category; or photos are missing or lie outside `images`.
        """
        from vlm_tune.data.coco import read_coco

        examples, splits = read_coco(path, task=task, images=images, rule=rule, other=other, group=group)
        return cls(examples, task=task, splits=splits)

    @classmethod
    def from_hf(
        cls,
        source: HfSource,
        *,
        task: Task | str,
        image: str | None = None,
        label: str | None = None,
        group: str = "group",
        id: str | None = None,
        limit: int | None = None,
    ) -> Self:
        """Read a Hugging Face dataset; images stay encoded as they are.

        Args:
            source: A `datasets.Dataset` or `IterableDataset`; a Parquet file, a folder of them in the hub's layout or
                one that `save_to_disk` wrote; an id on the hub; or datasets or files by split, such as a
                `DatasetDict`. A source with a single split counts as not split yet.
            task: The question; or only its prompt, and the classes are those of the label column, by its
                `ClassLabel` names where it has some. A list of classes in each row makes it a multi-label task.
            image: Column with the image; by default `image`, or else the only one that holds images.
            label: Column with the class; by default `label`, or else the only one with named classes.
            group: Column with the group, if there is one; or a regular expression with one capture group that
                finds the group in the image's file name, or else in the id.
            id: Column with the examples' ids. By default an id is the split and the row's number, `train/17`: the
                same as long as the source's rows are.
            limit: Read the first so many rows of each split only; a source on the hub is then streamed.

        Columns without a part become metadata; other media do not.

        Raises:
            DataError: The source cannot be reached or read, lacks a column or leaves open which one is meant; or
                a row has no image or no label.
            UnknownLabelError: A label is not one of the task's classes.
        """
        from vlm_tune.data.hugging_face import read_hf
        from vlm_tune.data.hugging_face_columns import Columns

        found = read_hf(source, columns=Columns(image=image, label=label, group=group, id=id), limit=limit)
        if isinstance(task, str):
            if found.classes is None:
                raise DataError("the labels are numbers without names; pass a Task, or cast the column to ClassLabel")
            task = Task(prompt=task, classes=found.classes, multi_label=found.multi_label)
        return cls(found.examples, task=task, splits=found.splits)

    @classmethod
    def from_cifar(cls, path: Path | str, *, task: Task | str, label: Literal["fine", "coarse"] = "fine") -> Self:
        """Read CIFAR-10 or CIFAR-100 from the Python batches in which they are published.

        The batches are pickles; they are read by a reader that refuses everything but arrays, bytes, lists,
        dictionaries, numbers and text. Images become PNG, without loss. Ids are file and row, `train/17`.

        Args:
            path: The unpacked folder, which gives the splits; or one batch in it, which is not split.
            task: The question; or only its prompt, and the classes are CIFAR's.
            label: CIFAR-100's 100 classes or its 20 coarse ones; the other label becomes metadata.

        Raises:
            DataError: There is no batch, the file of class names is missing, or a file is truncated or holds
                anything that a batch does not.
            UnknownLabelError: A label is not one of the task's classes.
        """
        from vlm_tune.data.cifar import read_cifar

        batches = read_cifar(path, label=label)
        if isinstance(task, str):
            task = Task(prompt=task, classes=batches.classes)
        return cls(batches.examples, task=task, splits=batches.splits)
