"""The question: one frozen object that decides what every predictor is asked."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, PositiveInt, ValidationError

from vlm_tune.errors import TaskError, UnknownLabelError
from vlm_tune.records import Record

__all__ = ["NONE", "Task"]

NONE = "none"
"""The answer that a photo of a multi-label task shows none of the classes."""

_WRAPPING = " \t\r\n\"'`*.,;:!()[]"
_MAX_LISTED = 10
"""Classes of a multi-label task whose answers can still be listed: 1,024 of them."""


class Task(Record):
    """A closed question about one image, asked of every predictor in the same words.

    Attributes:
        prompt: The question.
        classes: The possible answers, at least two.
        aliases: Other spellings of a class that count as that class.
        descriptions: A line about a class that the prompt shows.
        max_pixels: Image budget; larger images are shrunk to it once, for every predictor.
        multi_label: A photo may show several of the classes, or none of them. An answer is then the list of
            its classes in the task's order, such as `crack, dent`, or `none`; a label is written the same way.

    Raises:
        TaskError: A class is empty, given twice (case and spaces ignored) or unknown to `aliases` or
            `descriptions`; the prompt is empty; or a class of a multi-label task is called `none` or reads like
            a list.

    Examples:
        >>> task = Task(prompt="What is it?", classes=("crack", "dent"))
        >>> print(task.render())
        What is it?
        Answer with one of: crack, dent.
        >>> task.parse("Dent.")
        'dent'
        >>> damage = Task(prompt="What is damaged?", classes=("crack", "dent"), multi_label=True)
        >>> damage.parse("Dent and crack."), damage.join([]), damage.members("crack, dent")
        ('crack, dent', 'none', ('crack', 'dent'))
    """

    prompt: str
    """The question."""
    classes: tuple[str, ...]
    """The possible answers, in the order the prompt lists them."""
    aliases: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Class to other spellings that count as it."""
    descriptions: Mapping[str, str] = Field(default_factory=dict)
    """Class to a line that explains it in the prompt."""
    max_pixels: PositiveInt = 1_048_576
    """Largest width x height sent to any predictor, in pixels."""
    multi_label: bool = False
    """Whether a photo may show several of the classes, or none."""

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "task"
            raise TaskError(f"Task.{where}: {first['msg']}") from error

    def model_post_init(self, context: Any, /) -> None:
        """Check what single fields cannot: names that collide, and mappings about unknown classes."""
        if not self.prompt.strip():
            raise TaskError("the prompt is empty; write the question that the photo should answer")
        if len(self.classes) < 2:
            raise TaskError(f"a task needs at least two classes, got {len(self.classes)}")
        for mapping, name in ((self.aliases, "aliases"), (self.descriptions, "descriptions")):
            for label in mapping:
                if label not in self.classes:
                    raise UnknownLabelError(label, self.classes, where=f"Task.{name}")
        self._check_spellings()

    def _check_spellings(self) -> None:
        owner: dict[str, str] = {}
        for label in self.classes:
            for spelling in (label, *self.aliases.get(label, ())):
                key = _fold(spelling)
                if not key:
                    raise TaskError(f"class {label!r} has an empty name or alias {spelling!r}")
                if self.multi_label:
                    _check_item(spelling)
                if key in owner and (owner[key] != label or spelling == label):
                    raise TaskError(f"{spelling!r} names both {owner[key]!r} and {label!r}; classes must differ")
                owner[key] = label

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever anything a predictor sees changes."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def render(self) -> str:
        """Return the one prompt that all predictors get."""
        lines = [self.prompt.strip()]
        lines += [f"- {label}: {self.descriptions[label]}" for label in self.classes if label in self.descriptions]
        if self.multi_label:
            lines.append(f"Answer with all that apply, in this order: {', '.join(self.classes)}.")
            lines.append(f"Separate them by commas. If none applies, answer: {NONE}.")
        else:
            lines.append(f"Answer with one of: {', '.join(self.classes)}.")
        return "\n".join(lines)

    @property
    def answers(self) -> tuple[str, ...]:
        """Every possible answer: the classes or, for a multi-label task, every list of them, the short ones first.

        Raises:
            TaskError: A multi-label task has more than 10 classes: its answers are too many to list.
        """
        if not self.multi_label:
            return self.classes
        if not self._can_list:
            raise TaskError(
                f"a multi-label task of {len(self.classes)} classes has {2 ** len(self.classes):,} possible answers; "
                f"those of up to {_MAX_LISTED} classes can be scored. Let the model write its answer instead: "
                'VLM(..., answer="generate")'
            )
        sizes = range(len(self.classes) + 1)
        return tuple(self.join(chosen) for size in sizes for chosen in itertools.combinations(self.classes, size))

    @property
    def _can_list(self) -> bool:
        return not self.multi_label or len(self.classes) <= _MAX_LISTED

    def candidates(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Return answers to tell labels from: all of them or, where those are too many, a choice.

        The choice is `none`, each class alone, all classes together, and the labels themselves.

        Args:
            labels: Labels as `canonical` returns them.

        Examples:
            >>> task = Task(prompt="?", classes=("a", "b"), multi_label=True)
            >>> task.candidates(["a, b"])
            ('none', 'a', 'b', 'a, b')
        """
        if self._can_list:
            return self.answers
        return tuple(dict.fromkeys((NONE, *self.classes, self.join(self.classes), *labels)))

    def join(self, classes: Iterable[str]) -> str:
        """Return the answer that names these classes and no other: in the task's order, or `none`.

        Raises:
            UnknownLabelError: One is not a class.
            TaskError: It is not a multi-label task, and they are not exactly one.
        """
        chosen = set(classes)
        if unknown := sorted(chosen.difference(self.classes)):
            raise UnknownLabelError(unknown[0], self.classes)
        if not self.multi_label and len(chosen) != 1:
            raise TaskError(f"a photo of this task has one class, not {len(chosen)}; or set Task(multi_label=True)")
        return ", ".join(label for label in self.classes if label in chosen) or NONE

    def members(self, answer: str) -> tuple[str, ...]:
        """Return the classes that an answer or label, as `canonical` or `parse` return it, names."""
        if not self.multi_label:
            return (answer,)
        return () if answer == NONE else tuple(answer.split(", "))

    def is_answer(self, text: str) -> bool:
        """Whether a text is an answer exactly as `canonical`, `join` and `parse` write it."""
        try:
            return self.canonical(text) == text
        except UnknownLabelError:
            return False

    def canonical(self, label: str, *, where: str = "") -> str:
        """Return the class that a label in a dataset names exactly, by name or alias.

        For a multi-label task, the list of them in the task's order; the label separates them by commas.

        Raises:
            UnknownLabelError: It is none of them; the error lists the nearest. A label that differs only in
                case or spaces is refused too, because such a slip often hides a second class.
        """
        if not self.multi_label:
            return self._named(label, where)
        if label == NONE:
            return NONE
        return self.join(self._named(item.strip(), where) for item in label.split(","))

    def _named(self, label: str, where: str) -> str:
        if label in self.classes:
            return label
        for name, others in self.aliases.items():
            if label in others:
                return name
        raise UnknownLabelError(label, self.classes, where=where)

    def parse(self, text: str) -> str | None:
        """Return the class that a model's words name, or None; for a multi-label task, the list of them.

        Strict on purpose: after dropping case, surrounding punctuation and one leading `answer:`, the words
        must be exactly one class or alias, or a list of them by commas, semicolons, lines or `and` where
        several may apply. A sentence that mentions a class is not an answer.
        """
        words = re.sub(r"^\W*answer\s*(is)?\s*:?\s*", "", text, flags=re.IGNORECASE)
        for candidate in (text, words):
            if self.multi_label and _fold(candidate) == NONE:
                return NONE
            named = [self._meant(item) for item in (_items(candidate) if self.multi_label else [candidate])]
            if named and None not in named:
                return self.join(label for label in named if label is not None)
        return None

    def _meant(self, words: str) -> str | None:
        for label in self.classes:
            if _fold(words) in {_fold(name) for name in (label, *self.aliases.get(label, ()))}:
                return label
        return None


def _check_item(name: str) -> None:
    if _fold(name) == NONE:
        raise TaskError(f"{name!r} is taken: it answers that none of the classes applies; call the class otherwise")
    if _items(name) != [name] or name != name.strip():
        raise TaskError(f"{name!r} reads like part of a list; a class of a multi-label task needs one plain name")


def _items(text: str) -> list[str]:
    parts = re.split(r"[,;\n]|\band\b", text, flags=re.IGNORECASE)
    return [part for part in parts if _fold(part)]


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(_WRAPPING)).casefold()
