"""Numbers as a reader wants them: units, few digits, no line breaks inside."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["FORMATS", "about", "count", "duration", "money", "p_value", "percent", "size", "typeset"]


def percent(value: float | None, digits: int = 0) -> str:
    """Return a fraction in percent.

    Examples:
        >>> percent(0.8878, 1)
        '88.8 %'
    """
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def duration(seconds: float | None) -> str:
    """Return a time in the units a person would say.

    Examples:
        >>> [duration(value) for value in (None, 0.042, 7.3, 492, 7300)]
        ['–', '42 ms', '7.3 s', '8 min 12 s', '2 h 1 min']
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def money(usd: float | None) -> str:
    """Return dollars with as many digits as matter.

    Examples:
        >>> [money(value) for value in (None, 0.0, 0.0042, 1.5)]
        ['–', '$0', '$0.0042', '$1.50']
    """
    if usd is None:
        return "–"
    if usd == 0:
        return "$0"
    return f"${usd:,.2f}" if usd >= 0.1 else f"${usd:.2g}"


def count(number: int) -> str:
    """Return a whole number with thin spaces between thousands.

    Examples:
        >>> count(1234567) == "1\u202f234\u202f567"
        True
    """
    return f"{number:,}".replace(",", "\u202f")


def about(number: int) -> str:
    """Return an estimated count with the two digits that it is good for.

    Examples:
        >>> about(318), about(7)
        ('320', '7')
    """
    return count(round(number, min(0, 2 - len(str(number)))))


def typeset(text: str) -> str:
    """Return text in which a number keeps its unit, and an interval its ends, on one line.

    Examples:
        >>> typeset("82.7 % [74.0, 88.9]").count("\N{NO-BREAK SPACE}")
        2
    """
    text = re.sub(r"(?<=\d) (?=%)|(?<=\b[np]) (?=[=<])|(?<=[=<]) (?=\d)", "\N{NO-BREAK SPACE}", text)
    return re.sub(r"\[[-+.,\d ]+\]", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def size(num_bytes: float) -> str:
    """Return a size in decimal units.

    Examples:
        >>> size(17_534_000_000)
        '17.5 GB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def p_value(value: float) -> str:
    """Return a p-value as it is printed.

    Examples:
        >>> p_value(0.17956), p_value(0.00002)
        ('p = 0.180', 'p < 0.001')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


FORMATS: dict[str, Callable[..., str]] = {
    "percent": percent,
    "count": count,
    "p_value": p_value,
    "typeset": typeset,
}
"""What the templates may call."""
