"""The words of a comparison: its verdict as a sentence, and what each example's tag is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from vlm_tune.evaluation.comparing.counts import Verdict

if TYPE_CHECKING:
    from vlm_tune.evaluation.comparison import Comparison

__all__ = ["WORDS", "Tag", "p_words", "sentence", "slugs", "tag_names"]

Tag = Literal["both_right", "candidate_only", "reference_only", "both_wrong"]
"""Who was right about one example."""

WORDS: Mapping[Verdict, str] = MappingProxyType(
    {"better": "better", "worse": "worse", "equivalent": "equivalent", "not_established": "not established"}
)
"""A verdict as it stands in a sentence."""


_TAKEN = {"example_id", "truth", "group", "image", "tag"}
"""Columns that an export has besides those of the systems."""


def sentence(comparison: Comparison) -> str:
    """Return the verdict in words, with the numbers it rests on."""
    points = 100 * comparison.difference.value
    gap = f"{abs(points):.1f} points {'ahead of' if points > 0 else 'behind'}" if points else "level with"
    low, high = 100 * comparison.difference.low, 100 * comparison.difference.high
    test = "exact McNemar by group" if comparison.clustered else "exact McNemar"
    level = f"{100 * (1 - comparison.alpha):g} % interval [{low:+.1f}, {high:+.1f}]"
    parts = [
        f"{comparison.candidate.name} is {gap} {comparison.reference.name}, {level}, "
        f"{test} {p_words(comparison.p_value)}: {WORDS[comparison.verdict]}."
    ]
    if comparison.coverage < comparison.min_coverage:
        parts.append(f"Only {comparison.n} of {comparison.num_examples} examples were answered by both.")
    elif comparison.verdict == "equivalent":
        parts.append(f"The interval lies within {100 * comparison.margin:g} points.")
    elif comparison.verdict == "not_established":
        needed = comparison.images_needed
        number = f"about {_round(needed)} test images would be needed" if needed else "no number is enough"
        parts.append(f"At this rate of disagreement {number} for 80 % power.")
    return " ".join(parts)


def p_words(value: float) -> str:
    """Return a p-value as text.

    Examples:
        >>> p_words(0.17956), p_words(0.0000004)
        ('p = 0.180', 'p < 0.001')
    """
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def slugs(candidate: str, reference: str) -> tuple[str, str]:
    """Return two names as they can stand in a column's name; `candidate` and `reference` where they cannot.

    Examples:
        >>> slugs("Qwen3-VL-8B tuned", "gemini-3-flash-preview")
        ('qwen3_vl_8b_tuned', 'gemini_3_flash_preview')
    """
    names = [re.sub(r"\W+", "_", name).strip("_").lower() for name in (candidate, reference)]
    usable = all(names) and names[0] != names[1] and not _TAKEN.intersection(names)
    return (names[0], names[1]) if usable else ("candidate", "reference")


def tag_names(candidate: str, reference: str) -> Mapping[Tag, str]:
    """Return what the tags are called in exports, with the systems' names.

    Examples:
        >>> tag_names("tuned", "base")["candidate_only"]
        'base_wrong_tuned_right'
    """
    mine, other = slugs(candidate, reference)
    return MappingProxyType(
        {
            "both_right": "both_right",
            "candidate_only": f"{other}_wrong_{mine}_right",
            "reference_only": f"{mine}_wrong_{other}_right",
            "both_wrong": "both_wrong",
        }
    )


def _round(number: int) -> int:
    """Round to two digits: the observed rates carry no more."""
    return round(number, 2 - len(str(number)))
