"""A bar inside another one's block stands below it; both speak through one display, and none when quiet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from rich.console import Console

from vlm_tune import _console


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What a terminal gets."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None, legacy_windows=False)
    monkeypatch.setattr(_console, "_stderr", lambda: console)
    yield screen
    assert _console._shown is None


def last_line(screen: io.StringIO) -> str:
    """The last line that was drawn, without the terminal's signs."""
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", screen.getvalue())
    return [line for line in re.split(r"[\r\n]", plain) if line.strip()][-1]


def test_a_bar_inside_another_stands_below_it_and_goes_when_it_is_done(screen: io.StringIO) -> None:
    with _console.progress("Learning curve", total=3, timed=False) as outer:
        with _console.progress("Training", total=10) as inner:
            inner.advance(10)
            assert _console._shown is not None
            _console._shown.refresh()
            assert [task.description for task in _console._shown.tasks] == ["Learning curve", "Training"]
        outer.advance()
        outer.note("about 4 min left")
    said = screen.getvalue()
    assert "Training" in said
    assert "10/10" in said
    line = last_line(screen)
    assert "Learning curve" in line
    assert "1/3" in line
    assert "about 4 min left" in line


def test_items_that_are_not_alike_have_no_rate_and_no_time(screen: io.StringIO) -> None:
    for timed in (True, False):
        with _console.progress("Points", total=2, timed=timed) as bar:
            for _ in range(2):
                bar.advance()
        line = last_line(screen)
        assert ("0:0" in line or "-:--" in line) is timed
        assert ("/s" in line) is timed


def test_a_quiet_bar_does_not_join_one_that_is_shown(screen: io.StringIO) -> None:
    with _console.progress("Learning curve", total=2):
        shown = _console._shown
        assert shown is not None
        with _console.quiet(), _console.progress("Training", total=2) as bar:
            bar.advance(2)
            assert len(shown.tasks) == 1
        assert _console._shown is shown
    assert "Training" not in screen.getvalue()


def test_a_bar_that_breaks_off_leaves_the_other_one(screen: io.StringIO) -> None:
    with _console.progress("Learning curve", total=2):
        with pytest.raises(ValueError, match="no"), _console.progress("Training", total=2):
            raise ValueError("no")
        shown = _console._shown
        assert shown is not None
        assert [task.description for task in shown.tasks] == ["Learning curve"]
