"""What the label audit found: which tokens are trained, as numbers and as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from vlm_tune.records import Record, SavedRecord

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["TokenAudit", "TokenKind", "TokenSpan"]

TokenKind = Literal["masked", "image", "trained"]
"""Words that are only read, an image, or what the loss sees."""

_STYLES: dict[TokenKind, str] = {"masked": "default", "image": "black on cyan", "trained": "bold white on dark_green"}

_LABELS_SHOWN = 20


class TokenSpan(Record):
    """Neighbouring tokens of one kind."""

    kind: TokenKind
    """What becomes of them."""
    text: str
    """Their text, special tokens spelled out; an image is `<image x 713>`, whatever its tokens are called."""
    num_tokens: PositiveInt
    """How many there are."""


class TokenAudit(SavedRecord):
    """What is trained and what is not, decoded from the very batches that the trainer gets."""

    saved_as: ClassVar[str] = "label audit"
    examples: NonNegativeInt
    """Examples decoded: one batch, and one of every label."""
    trained_text: dict[str, str]
    """Label to the text that is trained for it, special tokens spelled out."""
    trained_tokens: NonNegativeInt
    """Tokens that the loss sees."""
    total_tokens: NonNegativeInt
    """Tokens of those examples, padding left out."""
    image_tokens: NonNegativeInt
    """Those of them that stand for images; none is trained."""
    example_id: str
    """The example that `spans` shows."""
    spans: tuple[TokenSpan, ...]
    """All its tokens, in order."""

    @property
    def trained_fraction(self) -> float:
        """Share of the tokens that the loss sees."""
        return self.trained_tokens / self.total_tokens

    @property
    def headline(self) -> str:
        """The numbers in one line.

        Examples:
            >>> audit.headline  # doctest: +SKIP
            '24 of 2,914 tokens are trained (0.8 %), in 6 examples'
        """
        share = f"{100 * self.trained_fraction:.1f} %"
        tokens = f"{self.trained_tokens:,} of {self.total_tokens:,} tokens"
        return f"{tokens} are trained ({share}), in {self.examples} examples"

    def frame(self) -> pd.DataFrame:
        """Return one row a label: label and trained text."""
        import pandas as pd

        return pd.DataFrame({"label": list(self.trained_text), "trained_text": list(self.trained_text.values())})

    def plot(self) -> Figure:
        """Draw the example with its tokens coloured by what becomes of them."""
        from vlm_tune import plots

        spans = [(span.kind, span.text) for span in self.spans]
        return plots.token_spans(spans, caption=self.example_id, title=f"Label audit: {self.headline}")

    def _rich(self) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        words = Text()
        for span in self.spans:
            words.append(span.text.replace("\n", "⏎\n"), style=_STYLES[span.kind])
        table = Table("label", "trained for it", title="What the loss sees")
        for label in list(self.trained_text)[:_LABELS_SHOWN]:
            table.add_row(Text(label), Text(self.trained_text[label], style=_STYLES["trained"]))
        parts: list[RenderableType] = [Text(f"Label audit: {self.headline}", style="bold"), _legend()]
        parts += [Panel(words, title=Text(self.example_id), title_align="left"), table]
        if len(self.trained_text) > _LABELS_SHOWN:
            parts.append(Text(f"and {len(self.trained_text) - _LABELS_SHOWN} labels more", style="dim"))
        return Group(*parts)


def _legend() -> Text:
    from rich.text import Text

    words = {"trained": " trained ", "image": " image, not trained ", "masked": " read, not trained "}
    legend = Text()
    for kind in ("trained", "image", "masked"):
        legend.append(words[kind], style=_STYLES[kind])
        legend.append(" ")
    return legend
