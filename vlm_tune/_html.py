"""Rich's tables and words as HTML for notebooks: real tables, in which everything that comes from data is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.style import StyleType
    from rich.table import Table
    from rich.text import Text

__all__ = ["fragment"]

_LINE = "1px solid rgba(128,128,128,.35)"
_TABLE = "border-collapse:collapse;margin:.5em 0;font-variant-numeric:tabular-nums"
_CAPTION = "caption-side:top;text-align:left;font-weight:600;padding:.2em 0;white-space:nowrap;color:inherit"
_CELL = "padding:.25em .9em .25em 0;vertical-align:top;white-space:pre-wrap;background:none"


def fragment(renderable: RenderableType) -> str:
    """Return tables as `<table>`, words as `<p>`, a group as its members; anything else as it looks in a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if isinstance(renderable, Group):
        return "".join(map(fragment, renderable.renderables))
    if isinstance(renderable, Table):
        return _table(renderable)
    if isinstance(renderable, str | Text):
        words = _words(renderable)
        return f"<p style='margin:.3em 0;white-space:pre-wrap'>{words}</p>" if words else ""
    return _as_in_a_terminal(renderable)


def _table(table: Table) -> str:
    aligned = [
        f"text-align:{column.justify if column.justify in ('right', 'center') else 'left'}" for column in table.columns
    ]
    parts = [f"<caption style='{_CAPTION}'>{_words(table.title)}</caption>"] if table.title else []
    if table.show_header:
        parts.append(f"<thead>{_row('th', (one.header for one in table.columns), aligned)}</thead>")
    styles = [_css(column.style) for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    body = (
        _row("td", cells, [f"{place};{style};{_css(row.style)}" for place, style in zip(aligned, styles, strict=True)])
        for row, cells in zip(table.rows, rows, strict=True)
    )
    parts.append(f"<tbody>{''.join(body)}</tbody>")
    if table.show_footer:
        parts.append(f"<tfoot>{_row('th', (one.footer for one in table.columns), aligned)}</tfoot>")
    return f"<table style='{_TABLE}'>{''.join(parts)}</table>"


def _row(tag: str, cells: Iterable[RenderableType], styles: Iterable[str]) -> str:
    drawn = (
        f"<{tag} style='{_CELL};border-bottom:{_LINE};{style}'>{_inside(cell)}</{tag}>"
        for cell, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(drawn)}</tr>"


def _inside(cell: RenderableType) -> str:
    from rich.text import Text

    return _words(cell) if isinstance(cell, str | Text) else fragment(cell)


def _words(words: str | Text) -> str:
    if isinstance(words, str):
        return escape(words)
    # The end of a text is a new line in a terminal, and nothing here.
    inside = "".join(_span(escape(part.text), part.style) for part in words.render(_console(), end=""))
    return _span(inside, words.style)


def _span(words: str, style: StyleType | None) -> str:
    css = _css(style)
    return f"<span style='{css}'>{words}</span>" if css and words else words


def _css(style: StyleType | None) -> str:
    from rich.style import Style
    from rich.terminal_theme import DEFAULT_TERMINAL_THEME

    known = style if isinstance(style, Style) else Style.parse(style or "none")
    return known.get_html_style(DEFAULT_TERMINAL_THEME)


def _as_in_a_terminal(renderable: RenderableType) -> str:
    console = _console()
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format="<pre style='line-height:1.3'>{code}</pre>")


def _console() -> Console:
    import io

    from rich.console import Console

    return Console(file=io.StringIO(), record=True, width=110, force_jupyter=False, markup=False, emoji=False)
