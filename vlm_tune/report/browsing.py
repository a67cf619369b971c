"""The section in which every example can be looked up: its photo, its truth, and what every system said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vlm_tune.audit import LabelAudit
from vlm_tune.evaluation import Comparison
from vlm_tune.leakage import LeakageReport
from vlm_tune.report.blocks import Answer, Block, Photo, Section
from vlm_tune.report.context import Context
from vlm_tune.report.words import count

__all__ = ["Browser", "examples"]

_MOST_EXAMPLES = 20_000

Said = Sequence[Mapping[str, Answer]]
"""For each system of the scoreboard, its answers by example id."""


@dataclass(frozen=True)
class Browser(Block):
    """All examples as columns, for the page's script to filter, sort and draw."""

    kind = "browser"
    content: Mapping[str, Any]
    left_out: int

    @property
    def num_examples(self) -> int:
        """How many examples there are to look up."""
        return len(self.content["id"])

    @property
    def json(self) -> Markup:
        r"""The content as it may stand in a script block: only `<` could end one, and `\u003c` says the same."""
        text = json.dumps(self.content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("<", "\\u003c"))


def examples(context: Context, results: Iterable[object]) -> Section:
    """Return every example with what is known about it; of very many, those that the systems disagree on first.

    Args:
        context: What all sections share.
        results: What else is in the report: comparisons, leaks and label audits tag the examples.
    """
    said = [context.answers(system) for system in context.scoreboard]
    every = list(context.example_ids())
    if len(every) > _MOST_EXAMPLES:
        every.sort(key=lambda example_id: not _disputed(said, example_id))
    ids = every[:_MOST_EXAMPLES]
    words = _Words(context.evaluations[0].classes)
    sources = context.sources
    pictures = context.photos.all({example_id: sources[example_id] for example_id in ids if example_id in sources})
    places = {example_id: place for place, example_id in enumerate(ids)}
    tags = [
        [name, why, found]
        for name, why, tagged in _tags(context, results, ids, said)
        if (found := [places[example_id] for example_id in tagged if example_id in places])
    ]
    truths = context.truths
    content = {
        "systems": [[system.name, system.number] for system in context.scoreboard],
        "id": ids,
        "truth": [words.place(truths[example_id]) for example_id in ids],
        "photo": [_picture(pictures.get(example_id)) for example_id in ids],
        **_columns(ids, said, words),
        "tags": tags,
        "folder": context.photos.address,
        "numClasses": len(context.evaluations[0].classes),
        "words": words.known,
    }
    lead = (
        f"All {count(len(ids))} photos with what every system said. Arrow keys walk through them, Enter enlarges one, "
        "/ searches."
    )
    block = Browser(content, left_out=len(every) - len(ids))
    return Section(context.anchor("examples"), "Every example", [block], rank=41, lead=lead, short="Examples")


class _Words:
    """Every text that occurs, once: classes first, so that a class has the place it has in the matrices."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.known = list(classes)
        self._places: dict[tuple[str, bool], int] = {(name, True): place for place, name in enumerate(classes)}

    def place(self, text: str, *, named: bool = True) -> int:
        """Return a text's place; an answer that is no class has another one than a class of that name."""
        found = self._places.setdefault((text, named), len(self.known))
        if found == len(self.known):
            self.known.append(text)
        return found


def _columns(ids: Sequence[str], said: Said, words: _Words) -> dict[str, list[list[Any]]]:
    """Return for each system the place of each answer, whether it is right (-1: none came), and its probability."""
    columns: dict[str, list[list[Any]]] = {"said": [], "right": [], "sure": []}
    for of in said:
        given = [of.get(example_id) for example_id in ids]
        columns["said"].append([one and words.place(one.text, named=one.named) for one in given])
        columns["right"].append([one and (-1 if one.right is None else int(one.right)) for one in given])
        sure = [None if one is None or one.probability is None else round(one.probability, 4) for one in given]
        columns["sure"].append(sure)
    return columns


def _picture(found: Photo | str | None) -> list[Any] | str | None:
    return [found.anchor, found.width, found.height] if isinstance(found, Photo) else found


def _disputed(said: Said, example_id: str) -> bool:
    return len({of[example_id].text for of in said if example_id in of}) > 1


def _tags(
    context: Context, results: Iterable[object], ids: Sequence[str], said: Said
) -> Iterator[tuple[str, str, Iterable[str]]]:
    """Yield the tags that examples can be filtered by: name, meaning, and who has it."""
    rights = {example_id: [of[example_id].right for of in said if example_id in of] for example_id in ids}
    if len(said) > 1:
        yield "systems disagree", "not all gave the same answer", [one for one in ids if _disputed(said, one)]
        yield "all wrong", "no system was right", [one for one in ids if not any(rights[one])]
    yield "somebody wrong", "at least one system was wrong", [one for one in ids if False in rights[one]]
    for result in results:
        if isinstance(result, Comparison):
            names = [context.system(side).name for side in (result.candidate, result.reference)]
            for tag, (winner, loser) in (("candidate_only", names), ("reference_only", names[::-1])):
                tagged = [example_id for example_id, found in result.tags.items() if found == tag]
                yield f"{winner} beats {loser}", f"{winner} is right and {loser} wrong", tagged
        elif isinstance(result, LeakageReport):
            yield "copy in training", "a near-copy was in another split", result.leaked_ids
        elif isinstance(result, LabelAudit):
            why = "the label is more likely wrong than right"
            yield "label in doubt", why, [one.example_id for one in result.suspects]
