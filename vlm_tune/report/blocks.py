"""What a report is made of: plain blocks that the templates draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from markupsafe import Markup

from vlm_tune.records import Estimate

__all__ = [
    "Answer",
    "Block",
    "Cell",
    "Chart",
    "Check",
    "Checks",
    "Confusion",
    "Confusions",
    "Duel",
    "Facts",
    "Figure",
    "Gallery",
    "Note",
    "PairCard",
    "Photo",
    "Quote",
    "Score",
    "Scoreboard",
    "Section",
    "System",
    "Table",
    "Tokens",
]


@dataclass(frozen=True)
class Photo:
    """A thumbnail that is stored once in the page and drawn wherever it is needed."""

    anchor: str
    width: int
    height: int


@dataclass(frozen=True)
class System:
    """A predictor: its name, and the number that gives it its colour."""

    number: int
    name: str


class Block:
    """One thing in a section; the template has a macro of the same name as `kind`."""

    kind: ClassVar[str]


@dataclass(frozen=True)
class Note(Block):
    """A paragraph."""

    kind = "note"
    text: str


@dataclass(frozen=True)
class Quote(Block):
    """Words as they stand, line by line."""

    kind = "quote"
    caption: str
    text: str
    code: bool = False
    """Whether a machine reads it."""


@dataclass(frozen=True)
class Tokens(Block):
    """A text by what becomes of its tokens: kind (`trained`, `image` or `masked`) and words of each piece."""

    kind = "tokens"
    caption: str
    pieces: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Facts(Block):
    """Short statements of the form name, value."""

    kind = "facts"
    items: Sequence[tuple[str, str]]
    caption: str = ""


@dataclass(frozen=True)
class Check:
    """Something that holds or does not, and what was seen."""

    name: str
    passed: bool
    detail: str


@dataclass(frozen=True)
class Checks(Block):
    """A list of checks."""

    kind = "checks"
    items: Sequence[Check]


@dataclass(frozen=True)
class Cell:
    """A table cell that is a number or stands back."""

    text: str
    faint: bool = False
    below: str = ""
    """A second line, smaller."""


@dataclass(frozen=True)
class Table(Block):
    """A table; the first column names the row."""

    kind = "table"
    caption: str
    columns: Sequence[str | System]
    rows: Sequence[Sequence[str | Cell]]
    note: str = ""
    numeric: bool = False
    """Whether every column but the first holds numbers."""
    sortable: bool = False
    """Whether a click on a column's name sorts by the numbers that its cells begin with."""


@dataclass(frozen=True)
class Chart(Block):
    """A drawing with real text."""

    kind = "chart"
    svg: Markup


@dataclass(frozen=True)
class Figure:
    """A number in words under a name, and what a column of them is sorted by."""

    name: str
    text: str
    value: float | None = None


@dataclass(frozen=True)
class Score:
    """One row of the scoreboard; without an estimate there are too few answers, and `bounds` says so."""

    system: System
    estimate: Estimate | None
    bounds: tuple[float, float]
    columns: Sequence[Figure]
    """Coverage, time, speed and cost, the same for every row."""


@dataclass(frozen=True)
class Scoreboard(Block):
    """Every system's accuracy on one scale."""

    kind = "scoreboard"
    scores: Sequence[Score]
    chance: float
    measure: str = "accuracy"
    """What the accuracy is called."""


@dataclass(frozen=True)
class Confusion:
    """One system's counts, truth by answer; the last column is no answer."""

    system: System
    summary: str
    rows: Sequence[Sequence[int]]

    def shade(self, row: int, column: int) -> int:
        """Return the cell's share of its row in tenths, rounded up."""
        total = sum(self.rows[row])
        return -(-10 * self.rows[row][column] // total) if total else 0


@dataclass(frozen=True)
class Confusions(Block):
    """The confusion matrices of all systems."""

    kind = "confusions"
    classes: Sequence[str]
    matrices: Sequence[Confusion]

    @property
    def silent(self) -> bool:
        """Whether any answer named no class, so that there is a column for it."""
        return any(row[-1] for matrix in self.matrices for row in matrix.rows)


@dataclass(frozen=True)
class Gallery(Block):
    """A few photos with a word under each."""

    kind = "gallery"
    photos: Sequence[tuple[str, Photo]]


@dataclass(frozen=True)
class Answer:
    """What one system said about one photo."""

    system: System
    text: str
    right: bool | None
    """None where no answer came."""
    probability: float | None = None
    named: bool = False
    """Whether the words name a class, or several."""


@dataclass(frozen=True)
class PairCard:
    """One photo of a head-to-head."""

    tag: str
    example_id: str
    truth: str
    photo: Photo | None
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Duel(Block):
    """Two systems on the same photos."""

    kind = "duel"
    anchor: str
    candidate: System
    reference: System
    verdict: str
    sentence: str
    counts: dict[str, int]
    difference: Estimate
    margin: float
    facts: Sequence[tuple[str, str]]
    cards: Sequence[PairCard]
    left_out: int
    open: bool = True
    """Whether the photos are unfolded to begin with."""

    @property
    def n(self) -> int:
        """Number of photos."""
        return sum(self.counts.values())

    @property
    def reach(self) -> float:
        """Half the width of the difference's axis, as a fraction."""
        widest = max(abs(self.difference.low), abs(self.difference.high), 2 * self.margin, 0.05)
        return min(1.0, 1.12 * widest)

    def place(self, value: float) -> float:
        """Return where a difference lies on an axis of 600 units."""
        return round(300 + 300 * max(-1.0, min(1.0, value / self.reach)), 1)


@dataclass(frozen=True)
class Section:
    """A part of the page, and what report.json says about it."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    rank: int = 50
    """Order on the page: lower comes first."""
    lead: str = ""
    """One sentence under the title."""
    short: str = ""
    """What the navigation calls it, when not by its title."""
    key: str = ""
    """What report.json calls the section; empty where it has none."""
    data: Any = field(default=None, repr=False)
    """Plain data for report.json."""
