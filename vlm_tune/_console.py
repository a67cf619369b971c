"""The terminal: one console for results, one for progress, one progress bar.

Results go to stdout and only when asked for (`show()`); progress goes to stderr, shows itself on a
terminal only, and is switched off with `quiet()`. Of several processes only the first one speaks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from vlm_tune import _html, _processes

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress

__all__ = ["Bar", "Shown", "notice", "progress", "quiet", "show", "stage"]

_quiet_depth = 0
_shown: Progress | None = None
"""The bars on the screen; a bar that begins inside the block of another one stands below it."""


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
def progress(title: str, *, total: int | None, timed: bool = True) -> Iterator[Bar]:
    """Show a bar with rate and time left on stderr while the block runs; it goes below one that is there already.

    Args:
        title: Words in front of the bar.
        total: How many items there are; None where nobody knows.
        timed: Whether items are alike, so that rate and time left follow from those that are done.

    Examples:
        >>> with progress("Reading photos", total=3) as bar:
        ...     for _ in range(3):
        ...         bar.advance()
    """
    global _shown
    outer = None if _silent() else _shown
    with _new_bars() if outer is None else nullcontext(outer) as bars:
        task = bars.add_task(title, total=total, note="", timed=timed)

        class _Bar:
            def advance(self, count: int = 1) -> None:
                bars.advance(task, count)

            def note(self, text: str) -> None:
                bars.update(task, note=text)

        before, _shown = _shown, bars
        try:
            yield _Bar()
        finally:
            _shown = before
            if outer is not None:
                bars.remove_task(task)


def _new_bars() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining
    from rich.text import Text

    class RateColumn(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed and task.fields["timed"] else "", style="dim")

    class LeftColumn(Remaining):
        def render(self, task: Task) -> Text:
            return super().render(task) if task.fields["timed"] else Text("")

    console = _stderr()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        RateColumn(),
        LeftColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        disable=_silent() or not console.is_terminal,
    )


def notice(text: str) -> None:
    """Say one line on stderr, unless quiet."""
    if not _silent():
        _stderr().print(text, style="dim", highlight=False, markup=False, soft_wrap=True)


def stage(title: str) -> None:
    """Draw a titled rule on stderr, unless quiet."""
    if not _silent():
        from rich.text import Text

        _stderr().rule(Text(title, style="bold"), align="left")


class Shown(ABC):
    """A result that shows itself: as tables in a terminal, and as the same tables where a notebook ends a cell in it.

    Whoever inherits says by `_rich` what is shown. Words are words, whatever they look like: neither the brackets of
    rich's markup nor the tags of HTML mean anything in them, since they may come from data.
    """

    @abstractmethod
    def _rich(self) -> RenderableType:
        """Return what is shown."""

    def to_html(self) -> str:
        """Return what a notebook shows: an HTML fragment in which everything that comes from data is escaped."""
        return _html.fragment(self._rich())

    def _repr_html_(self) -> str:
        return self.to_html()

    def _print(self) -> None:
        show(self._rich())

    def show(self) -> None:
        """Show it: as HTML in a notebook, else as tables on stdout."""
        if not _in_notebook():
            self._print()
        elif _processes.is_main():
            # Only a notebook gets here, and it brings IPython with it.
            notebook = import_module("IPython.display")
            notebook.display(notebook.HTML(self.to_html()))


def show(renderable: RenderableType, *, wrap: bool = True) -> None:
    """Print a result on stdout; without `wrap` long lines stay whole, for what is copied from the terminal."""
    if not _processes.is_main():
        return
    from rich.console import Console

    Console(markup=False, emoji=False).print(renderable, soft_wrap=not wrap)


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
