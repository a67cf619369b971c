"""Coded notes: what a report says on its own account, under a code that can be searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlm_tune.evaluation import Comparison, ComparisonMatrix, Evaluation
from vlm_tune.report.words import count, p_value

__all__ = ["Note", "notes"]

_PROBE = "linear probe on "
_BASELINES = (_PROBE, "zero-shot ", "random guess", "majority class")


@dataclass(frozen=True)
class Note:
    """One note."""

    code: str
    """Never reused for something else, such as `N001`."""
    name: str
    """The code in words, such as `linear-probe-not-beaten`."""
    text: str
    """What was found."""

    def __str__(self) -> str:
        return f"{self.code} {self.name}: {self.text}"


def notes(
    evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison], matrix: ComparisonMatrix | None = None
) -> list[Note]:
    """Return the notes that a report's evaluations give rise to.

    `N001 linear-probe-not-beaten`: a system that the report puts forward, the candidate of a comparison or else the
    last of the scoreboard, is not better than a linear probe on the same photos.

    `N002 not-sure-among-all-pairs`: two systems differ when they are looked at by themselves, which is no longer
    established once the tests of all pairs are corrected for.
    """
    probes = [one for one in evaluations if one.name.startswith(_PROBE)]
    candidates = [one.candidate for one in comparisons] or list(evaluations[-1:])
    tried = {one.name: one for one in candidates if not one.name.startswith(_BASELINES)}
    pairs = ((candidate, probe) for candidate in tried.values() for probe in probes)
    found = (_not_beaten(candidate, probe) for candidate, probe in pairs if _comparable(candidate, probe))
    unsure = (_not_sure(comparison, matrix) for comparison in comparisons) if matrix else ()
    return [note for note in (*found, *unsure) if note is not None]


def _comparable(candidate: Evaluation, probe: Evaluation) -> bool:
    if set(candidate.classes) != set(probe.classes) or candidate.truths != probe.truths:
        return False
    # Where no example was answered by both there is nothing to compare.
    return all(one.outcomes["failed"] < one.num_examples for one in (candidate, probe))


def _not_beaten(candidate: Evaluation, probe: Evaluation) -> Note | None:
    comparison = Comparison(candidate=candidate, reference=probe)
    verdict = comparison.verdict
    if verdict == "better":
        return None
    words = {
        "worse": "is worse than",
        "equivalent": "is as good as, and no better than,",
        "not_established": "is not shown to be better than",
    }[verdict]
    text = (
        f"{candidate.name} ({comparison.candidate_accuracy.percent()}) {words} the {probe.name} "
        f"({comparison.reference_accuracy.percent()}): {count(comparison.wins)} wins, {count(comparison.losses)} "
        f"losses, exact McNemar {p_value(comparison.p_value)}. The probe needs no fine-tuning: "
        "one frozen embedding and a linear layer."
    )
    return Note("N001", "linear-probe-not-beaten", text)


def _not_sure(comparison: Comparison, matrix: ComparisonMatrix) -> Note | None:
    names = (comparison.candidate.name, comparison.reference.name)
    if comparison.verdict not in ("better", "worse") or not set(names) <= set(matrix.names):
        return None
    cell = matrix.cell(*names)
    if cell.verdict == comparison.verdict:
        return None
    text = (
        f"that {names[0]} is {comparison.verdict} than {names[1]} (exact McNemar {p_value(comparison.p_value)}) is not "
        f"established among all {count(len(matrix.cells))} pairs of systems (Holm, {p_value(cell.adjusted_p)})."
    )
    return Note("N002", "not-sure-among-all-pairs", text)
