"""What all sections of one report share: the systems with their colours, their answers, and the photos."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vlm_tune import plots
from vlm_tune.evaluation import Evaluation
from vlm_tune.report.blocks import Answer, Photo, System
from vlm_tune.report.photos import Photos

__all__ = ["Context", "last_part"]


class Context:
    """The systems of a report, what they answered, and the photos known to their evaluations.

    Args:
        evaluations: The evaluations of the scoreboard, in its order.
        photos: The thumbnails of the page.
    """

    def __init__(self, evaluations: Sequence[Evaluation], photos: Photos) -> None:
        self.photos = photos
        self.evaluations = tuple(evaluations)
        self.systems: list[System] = []
        self.anchors: list[str] = []
        self._lookups: list[_Lookup] = []
        self._known: dict[tuple[str, str], System] = {}
        for evaluation in evaluations:
            self._add(evaluation)

    def _add(self, evaluation: Evaluation) -> System:
        name = evaluation.name
        same = sum(lookup.evaluation.name == name for lookup in self._lookups)
        system = System(number=len(self.systems), name=f"{name} (run {same + 1})" if same else name)
        self.systems.append(system)
        self._lookups.append(_Lookup(evaluation))
        self._known.setdefault((name, evaluation.predictor_fingerprint), system)
        return system

    @property
    def scoreboard(self) -> list[System]:
        """The systems of the scoreboard, in its order."""
        return self.systems[: len(self.evaluations)]

    def anchor(self, name: str) -> str:
        """Return a section's place in the page: the name, with a number where there is one already."""
        same = sum(known.rpartition("-")[0] == name or known == name for known in self.anchors)
        self.anchors.append(f"{name}-{same + 1}" if same else name)
        return self.anchors[-1]

    @property
    def colours(self) -> dict[int, str]:
        """Number of each system to its colour."""
        colour_of = plots.colours(system.name for system in self.systems)
        return {system.number: colour_of[system.name] for system in self.systems}

    def system(self, evaluation: Evaluation) -> System:
        """Return the system that an evaluation is about; one that the scoreboard lacks is added."""
        return self._known.get((evaluation.name, evaluation.predictor_fingerprint)) or self._add(evaluation)

    def answer(self, system: System, example_id: str) -> Answer | None:
        """Return what a system said about an example; None where it was not asked."""
        lookup = self._lookups[system.number]
        row = lookup.row(example_id)
        if row is None:
            return None
        return _answer(system, row, lookup.evaluation.classes, multi_label=lookup.evaluation.multi_label)

    def answers(self, system: System) -> dict[str, Answer]:
        """Return everything that a system said, by example id."""
        return self._lookups[system.number].answers(system)

    def photo(self, example_id: str) -> Photo | None:
        """Return an example's thumbnail, if its image is known and readable and there is room."""
        return self.photos.get(example_id, self.source(example_id))

    def source(self, example_id: str) -> Path | None:
        """Return where an example's image was when it was evaluated."""
        rows = (lookup.row(example_id) for lookup in self._lookups)
        return next((Path(row["image"]) for row in rows if row and row["image"]), None)

    @cached_property
    def sources(self) -> Mapping[str, Path]:
        """Where the examples' images were when they were evaluated, by example id."""
        found: dict[str, Path] = {}
        for one in self.evaluations:
            images = one.table["image"].to_pylist()
            pairs = zip(one.example_ids, images, strict=True)
            found |= {name: Path(image) for name, image in pairs if image and name not in found}
        return found

    def crowded_out(self, example_id: str) -> bool:
        """Whether only the limit on thumbnails keeps an example's photo from the page."""
        return self.photos.full and self.photo(example_id) is None and self.source(example_id) is not None

    def example_ids(self) -> Iterable[str]:
        """Return the ids of all evaluations, each once."""
        return dict.fromkeys(example_id for one in self.evaluations for example_id in one.example_ids)

    @cached_property
    def truths(self) -> Mapping[str, str]:
        """Example id to its class."""
        return {example_id: label for one in self.evaluations for example_id, label in one.truths.items()}


class _Lookup:
    """Rows of an evaluation's table by example id; a row becomes Python objects only when asked for."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation

    @cached_property
    def _places(self) -> dict[str, int]:
        return {example_id: place for place, example_id in enumerate(self.evaluation.example_ids)}

    def row(self, example_id: str) -> Mapping[str, Any] | None:
        place = self._places.get(example_id)
        if place is None:
            return None
        rows: list[dict[str, Any]] = self.evaluation.table.slice(place, 1).to_pylist()
        return rows[0]

    def answers(self, system: System) -> dict[str, Answer]:
        one = self.evaluation
        rows = one.table.select(["outcome", "label", "truth", "raw", "scores"]).to_pylist()
        found = (_answer(system, row, one.classes, multi_label=one.multi_label) for row in rows)
        return dict(zip(one.example_ids, found, strict=True))


def _answer(system: System, row: Mapping[str, Any], classes: Sequence[str], *, multi_label: bool) -> Answer:
    """Return what a row of an evaluation's table says, in words."""
    label, outcome = row["label"], row["outcome"]
    if outcome == "failed":
        return Answer(system, "no answer came", right=None)
    if label is None:
        words = f"“{row['raw'][:40]}”" if outcome == "unparseable" and row["raw"] else outcome
        return Answer(system, words, right=False)
    # Of a list of classes only the probability of each is kept.
    known = row["scores"] is not None and not multi_label
    probability = math.exp(row["scores"][classes.index(label)]) if known else None
    return Answer(system, label, right=label == row["truth"], probability=probability, named=True)


def last_part(name: str) -> str:
    """Return a model's name without the folders before it, which are nobody else's business.

    Examples:
        >>> last_part("/home/me/models/tuned"), last_part("Qwen/Qwen3-VL-8B-Instruct")
        ('tuned', 'Qwen/Qwen3-VL-8B-Instruct')
    """
    path = Path(name)
    return path.name or name if path.is_absolute() or name.startswith((".", "~")) else name
