"""One photo of an audit: how likely its label is wrong, and why."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import Field

from vlm_tune.records import Record

__all__ = ["LEAST_SQUARES", "LOGISTIC", "NEIGHBOURS", "Suspect"]

LEAST_SQUARES = "least squares"
LOGISTIC = "logistic regression"
NEIGHBOURS = "nearest photos"
"""What those who look at embeddings only are called."""


class Suspect(Record):
    """One photo of an audit, and what speaks for and against its label: a candidate, never a verdict."""

    example_id: str
    """The example's id."""
    label: str
    """The label that it carries."""
    suggestion: str
    """The likeliest other label."""
    log_odds: float
    """Log-odds that the label is wrong, as far as the evidence goes (`vlm_tune.audit.pooling`)."""
    answers: Mapping[str, str] = Field(default_factory=dict)
    """Who was asked to their answer; those without one are left out."""
    probabilities: Mapping[str, float] = Field(default_factory=dict)
    """Who was asked to the probability that they gave to it."""
    evidence: Mapping[str, float] = Field(default_factory=dict)
    """Who was asked to the weight of their evidence, in nats: above 0 it speaks for the suggestion, below 0 for the
    label. That somebody chose this label, and what copies carry, is there as `the label`. They add up to the log-odds
    of the suggestion against the label."""
    neighbours: Mapping[str, int] = Field(default_factory=dict)
    """Labels of the ten most similar photos to how many have them; copies and photos of its group do not count."""
    copies: Mapping[str, str] = Field(default_factory=dict)
    """Copies of the photo to their labels."""

    @property
    def suspicion(self) -> float:
        """Probability that the label is wrong."""
        return 1 / (1 + math.exp(-max(-700.0, self.log_odds)))

    @property
    def agreed(self) -> bool:
        """Whether the label is likelier right than wrong, every system gave it, and every copy carries it.

        Where no system was asked, as in the training split, the classifiers count instead.
        """
        looked = (LEAST_SQUARES, LOGISTIC, NEIGHBOURS)
        systems = [answer for name, answer in self.answers.items() if name not in looked]
        said = systems or [*self.answers.values()]
        return bool(said) and self.log_odds <= 0 and {*said, *self.copies.values()} == {self.label}

    @property
    def vote_margin(self) -> float | None:
        """Share of the most similar photos with the label less that of the next label; None without embeddings."""
        if not self.neighbours:
            return None
        others = max((count for label, count in self.neighbours.items() if label != self.label), default=0)
        return (self.neighbours.get(self.label, 0) - others) / sum(self.neighbours.values())

    @property
    def reason(self) -> str:
        """What speaks against the label, in words."""
        against = [name for name, answer in self.answers.items() if answer != self.label]
        said = [f"{len(against)} of {len(self.answers)} disagree"] if against else []
        if self.neighbours:
            said.append(f"{self.neighbours.get(self.label, 0)} of {sum(self.neighbours.values())} similar photos agree")
        if odd := sorted({label for label in self.copies.values() if label != self.label}):
            said.append(f"a copy says {' and '.join(odd)}")
        return "; ".join(said) or "nothing speaks against it"
