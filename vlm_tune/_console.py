"""The terminal: one console for results, one for progress, one progress bar.

Results go to stdout and only when asked for (`show()`); progress goes to stderr, shows itself on a
terminal only, and is switched off with `quiet()`. Of several processes only the first one speaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from vlm_tune import _processes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = ["Bar", "notice", "progress", "quiet", "show", "stage", "to_html"]

_quiet_depth = 0


class Bar(Protocol):
    """What `progress` yields: advance it, and say a few words about how it goes."""

    def advance(self, count: int = 1) -> None:
        """Move forward by `count` items."""

    def note(self, text: str) -> None:
        """Replace the words at the end of the bar."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and notices inside the block."""
    global _quiet_depth
    _quiet_depth += 1
    try:
        yield
    finally:
        _quiet_depth -= 1


@contextmanager
def progress(title: str, *, total: int | None) -> Iterator[Bar]:
    """Show a bar with rate and time left on stderr while the block runs.

    Examples:
        >>> with progress("Reading photos", total=3) as bar:
        ...     for _ in range(3):
        ...         bar.advance()
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="dim")

    console = _stderr()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
        disable=_silent() or not console.is_terminal,
    ) as bars:
        task = bars.add_task(title, total=total, note="")

        class _Bar:
            def advance(self, count: int = 1) -> None:
                bars.advance(task, count)

            def note(self, text: str) -> None:
                bars.update(task, note=text)

        yield _Bar()


def notice(text: str) -> None:
    """Say one line on stderr, unless quiet."""
    if not _silent():
        _stderr().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def stage(title: str) -> None:
    """Draw a titled rule on stderr, unless quiet."""
    if not _silent():
        _stderr().rule(f"[bold]{title}", align="left")


def show(renderable: RenderableType, *, html: str | None = None, wrap: bool = True) -> None:
    """Show a result: HTML in a notebook where there is some, rich on stdout otherwise.

    Without `wrap` long lines stay whole, for what is copied from the terminal.
    """
    if not _processes.is_main():
        return
    if html is not None and _in_notebook():
        # Only a notebook gets here, and it brings IPython with it.
        notebook = import_module("IPython.display")
        notebook.display(notebook.HTML(html))
        return
    from rich.console import Console

    Console().print(renderable, soft_wrap=not wrap)


def to_html(renderable: RenderableType) -> str:
    """Render something rich as an HTML fragment, for notebooks."""
    import io

    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=110, force_jupyter=False)
    console.print(renderable)
    return console.export_html(inline_styles=True, code_format="<pre style='line-height:1.3'>{code}</pre>")


def _silent() -> bool:
    return _quiet_depth > 0 or not _processes.is_main()


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)


def _in_notebook() -> bool:
    import sys

    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
