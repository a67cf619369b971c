"""The records that flow between rooms: frozen, typed, with a JSON round trip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    StringConstraints,
    ValidationError,
)

from vlm_tune._console import Shown
from vlm_tune._files import read_json, write_json
from vlm_tune.errors import ImageError, StorageError, VlmTuneError

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Estimate", "Example", "Money", "Outcome", "Prediction", "Record", "SavedRecord", "Usage"]

Outcome = Literal["answered", "unparseable", "refused", "failed"]
"""What came of one question: an answer, words that are no class, a refusal, or nothing at all."""

NonEmpty = Annotated[str, StringConstraints(min_length=1)]


class Record(Shown, BaseModel):
    """Base of every record: frozen, strict about unknown fields, and shown as a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def _rich(self) -> RenderableType:
        """Draw a row for each field; records with a better view of themselves have their own."""
        from rich.table import Table
        from rich.text import Text

        table = Table("field", "value", title=type(self).__name__, title_justify="left")
        for name, field in type(self).model_fields.items():
            if field.repr:
                table.add_row(Text(name), _cell(getattr(self, name)))
        return table


def _cell(value: Any) -> RenderableType:
    """Draw a field's value: in words where it has some, else as Python writes it, cut where it is long."""
    from rich.pretty import pretty_repr
    from rich.text import Text

    if value is None:
        return Text("-")
    worded = isinstance(value, BaseModel) and type(value).__str__ is not BaseModel.__str__
    if worded or isinstance(value, str | int | float | Path):
        return Text(str(value))
    return Text(pretty_repr(value, max_length=10, max_string=200))


class SavedRecord(Record):
    """A record that is kept in a JSON file of its own, which says what it is."""

    saved_as: ClassVar[str]
    """What the file holds, in words."""

    def save(self, path: Path | str) -> Path:
        """Write everything to one JSON file and return its path.

        Raises:
            StorageError: The file cannot be written; nothing half-written is left.
        """
        return write_json(path, {"saved_as": self.saved_as, **json.loads(self.model_dump_json())})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            StorageError: The file is missing, or holds something else.
        """
        found = read_json(path)
        if not isinstance(found, dict) or found.pop("saved_as", None) != cls.saved_as:
            raise StorageError(f"{path} is not a saved {cls.saved_as}; give a file that {cls.__name__}.save wrote")
        try:
            return cls.model_validate(found)
        except (ValidationError, VlmTuneError) as error:
            raise StorageError(f"{path} is not a saved {cls.saved_as} of this version: {error}") from error


class Example(Record):
    """One labelled photo; the pixels stay encoded until somebody needs them.

    Examples:
        >>> Example(id="dent/7.jpg", image=b"...", label="dent").label
        'dent'
    """

    id: NonEmpty
    """Relative path or table key: unique in a dataset and stable across machines."""
    image: Path | bytes = Field(repr=False)
    """Where the encoded image is, or its encoded bytes."""
    label: NonEmpty
    """The class, as the task spells it."""
    group: str | None = None
    """What must stay in one split: a part, a patient, a video."""
    metadata: Mapping[str, Any] = Field(default_factory=dict, repr=False)
    """Whatever else the source said about the example."""

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the encoded bytes, read when first asked for.

        Raises:
            ImageError: The file is missing or cannot be read.
        """
        return hashlib.sha256(self.read()).hexdigest()

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some fields replaced; a replaced image is hashed anew."""
        copy = super().model_copy(update=update, deep=deep)
        if update is not None and "image" in update:
            copy.__dict__.pop("content_hash", None)
        return copy

    def read(self) -> bytes:
        """Return the encoded image bytes as they are stored.

        Raises:
            ImageError: The file is missing or cannot be read.
        """
        if isinstance(self.image, bytes):
            return self.image
        try:
            return self.image.read_bytes()
        except OSError as error:
            raise ImageError(self.image, error.strerror or str(error)) from error


class Usage(Record):
    """Tokens that one answer consumed, as the server counted them."""

    input_tokens: NonNegativeInt = 0
    """Prompt tokens, images and cached ones included."""
    cached_tokens: NonNegativeInt = 0
    """Those of the input tokens that came from a cache."""
    image_tokens: NonNegativeInt = 0
    """Those of the input tokens that stand for images."""
    output_tokens: NonNegativeInt = 0
    """Tokens of the answer, without thinking."""
    thinking_tokens: NonNegativeInt = 0
    """Tokens spent thinking; billed as output."""


class Prediction(Record):
    """What one predictor answered for one example."""

    example_id: NonEmpty
    """The example's id."""
    outcome: Outcome
    """Whether there is an answer, and if not, why."""
    label: str | None = None
    """The class answered; set exactly when the outcome is `answered`."""
    scores: Mapping[str, float] | None = None
    """Natural log-probability of each class, where the predictor has one: normalised over the classes or, for a
    multi-label task, of the class being in the answer, whatever else is in it."""
    raw: str | None = None
    """The answer's text before parsing."""
    latency_s: NonNegativeFloat | None = None
    """Seconds this answer took (its share of the batch for batched predictors)."""
    usage: Usage | None = None
    """Tokens consumed, for paid predictors."""
    cost_usd: NonNegativeFloat | None = None
    """Dollars this answer cost; None where nothing is paid per answer."""
    model_version: str | None = None
    """The exact model that answered, as the server names it."""
    error: str | None = None
    """Why there is no answer."""

    def model_post_init(self, context: Any, /) -> None:
        """Refuse a label without an answer and an answer without a label."""
        if (self.outcome == "answered") != (self.label is not None):
            raise ValueError("a prediction has a label exactly when its outcome is 'answered'")


class Estimate(Record):
    """A number with its interval, its sample size and its method; prints all of them.

    Examples:
        >>> print(Estimate(value=0.8878, low=0.8101, high=0.9362, n=98, method="Wilson 95%"))
        0.888 [0.810, 0.936] (n=98)
    """

    value: float
    """The point estimate."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: NonNegativeInt
    """Number of observations behind it."""
    method: str
    """How the interval was made, and its level."""

    def _rich(self) -> RenderableType:
        from rich.text import Text

        return Text(f"{self}, {self.method}")

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"

    def percent(self) -> str:
        """Return the estimate in percent, e.g. `88.8 % [81.0, 93.6]`."""
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def points(self) -> str:
        """Return a difference in percentage points, e.g. `+6.1 points [-1.5, +14.4]`."""
        return f"{100 * self.value:+.1f} points [{100 * self.low:+.1f}, {100 * self.high:+.1f}]"


class Money(Record):
    """An amount in dollars that says where its price comes from."""

    usd: NonNegativeFloat
    """The amount in US dollars."""
    basis: str
    """What was multiplied with what, and the price's source and date."""

    def _rich(self) -> RenderableType:
        from rich.text import Text

        return Text(f"{self} ({self.basis})")

    def __str__(self) -> str:
        return f"${self.usd:.2f}" if self.usd >= 0.1 or self.usd == 0 else f"${self.usd:.4f}"
