"""The question: one frozen object that decides what every predictor is asked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, PositiveInt, ValidationError

from vlm_tune.errors import TaskError, UnknownLabelError
from vlm_tune.records import Record

__all__ = ["Task"]

_WRAPPING = " \t\r\n\"'`*.,;:!()[]"


class Task(Record):
    """A closed question about one image, asked of every predictor in the same words.

    Args:
        prompt: The question.
        classes: The possible answers, at least two.
        aliases: Other spellings of a class that count as that class.
        descriptions: A line about a class that the prompt shows.
        max_pixels: Image budget; larger images are shrunk to it once, for every predictor.

    Raises:
        TaskError: A class is empty, given twice (case and spaces ignored) or unknown to `aliases` or
            `descriptions`; or the prompt is empty.

    Example:
        >>> task = Task(prompt="What is it?", classes=("crack", "dent"))
        >>> print(task.render())
        What is it?
        Answer with one of: crack, dent.
        >>> task.parse("Dent.")
        'dent'
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
        lines.append(f"Answer with one of: {', '.join(self.classes)}.")
        return "\n".join(lines)

    def canonical(self, label: str, *, where: str = "") -> str:
        """Return the class that a label in a dataset names exactly, by name or alias.

        Raises:
            UnknownLabelError: It is none of them; the error lists the nearest. A label that differs only in
                case or spaces is refused too, because such a slip often hides a second class.
        """
        if label in self.classes:
            return label
        for name, others in self.aliases.items():
            if label in others:
                return name
        raise UnknownLabelError(label, self.classes, where=where)

    def parse(self, text: str) -> str | None:
        """Return the class that a model's words name, or None.

        Strict on purpose: after dropping case, surrounding punctuation and one leading `answer:`, the words
        must be exactly one class or alias. A sentence that mentions a class is not an answer.
        """
        words = re.sub(r"^\W*answer\s*(is)?\s*:?\s*", "", text, flags=re.IGNORECASE)
        for candidate in (text, words):
            for label in self.classes:
                if _fold(candidate) in {_fold(name) for name in (label, *self.aliases.get(label, ()))}:
                    return label
        return None


def _fold(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip(_WRAPPING)).casefold()
