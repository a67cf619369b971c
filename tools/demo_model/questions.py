"""Questions about a picture: closed sets of every kind, made-up words with definitions, claims and captions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from demo_model.pictures import Picture
from demo_model.vocabulary import FAMILIES, WEAK_WORDS

_CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "ch", "sh", "br", "st", "tr", "pl")
_SYLLABLES = [consonant + vowel for consonant in _CONSONANTS for vowel in "aeiou"]
_TAILS = ("", "", "n", "r", "k", "m", "l", "st", "p", "x")
_LISTS = (
    "Answer with one of: {comma}.",
    "Options: {comma}.",
    "Choose one: {comma}",
    "Pick from: {slash}",
    "Reply with {either}.",
    "Possible answers: {comma}. Answer:",
)
_WEIGHT = {"mark": 5.0, "relation": 3.0, "focus": 0.5}
"""How often a family is asked about, where a picture has it; others 1."""
_CAPTION_REQUESTS = ("Describe the picture.", "What do you see?", "Write a caption.", "Describe this image in words.")


@dataclass(frozen=True)
class Question:
    """A prompt, the right answer, and what else could have been answered."""

    prompt: str
    answer: str
    options: tuple[str, ...] = ()
    """Empty where the answer is free."""


def made_up(rng: random.Random) -> str:
    """A word that means nothing."""
    return "".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 3)))) + rng.choice(_TAILS)


def ask(rng: random.Random, picture: Picture) -> Question:
    """Asks something that the picture's facts answer."""
    kind = rng.random()
    if kind > 0.94:
        return _lookup(rng)
    if kind < 0.1:
        return Question(_free(rng, rng.choice(_CAPTION_REQUESTS)), caption(rng, picture))
    families = [name for name in picture.facts if name in FAMILIES]
    heavy = [_WEIGHT.get(name, 1.0) for name in families]
    family = rng.choices(families, heavy)[0]
    if kind < 0.17:
        return _claim(rng, picture, family)
    if kind < 0.23:
        name = _name(rng, picture, family, picture.facts[family])
        return Question(_free(rng, _wording(rng, picture, family)), name)
    return closed(rng, picture, family, wording=_wording(rng, picture, family))


def closed(rng: random.Random, picture: Picture, family: str, *, wording: str, style: str | None = None) -> Question:
    """A question with a random set of options in random order.

    Args:
        rng: Decides everything that is left open.
        picture: What is asked about; must have a fact of the family.
        family: A key of `FAMILIES`.
        wording: The question itself.
        style: `names`, `described` (names with definitions) or `made_up` (meaningless words with definitions).
    """
    style = style or rng.choices(("names", "described", "made_up"), (5, 1, 2.5))[0]
    truth = picture.facts[family]
    values = _options(rng, family, truth, limit=12 if style == "names" else 5)
    names = [_name(rng, picture, family, value) for value in values]
    if style == "names":
        labels = _dress(rng, names)
        return _listed(rng, wording, labels, values.index(truth), definitions=())
    meanings = [_meaning(rng, picture, family, value) for value in values]
    if style == "made_up":
        names = _words(rng, len(values))
    lines = [f"- {name}: {meaning}" for name, meaning in zip(names, meanings, strict=True)]
    return _listed(rng, wording, names, values.index(truth), definitions=lines)


def caption(rng: random.Random, picture: Picture) -> str:
    """One line about the picture."""
    facts = picture.facts
    named = {family: _name(rng, picture, family, value) for family, value in facts.items() if family in FAMILIES}
    front = ["a", named.get("size", ""), named.get("colour", ""), named.get("direction", "")]
    if "mark" in facts:
        front.append(named["mark"])
    elif "texture" in facts:
        front.append(f"{named['texture']} surface")
    else:
        front[0] = named.get("count", "some")
        front.append(named.get("shape", "shapes"))
    where = [f"{named[key]}" for key in ("height", "side") if key in named]
    parts = [" ".join(word for word in front if word)]
    if where:
        parts.append("at the " + " ".join(where))
    if "background" in named:
        parts.append(f"on {named['background']}")
    if "light" in named:
        parts.append(f"with light {named['light']}")
    return " ".join(parts)


def _wording(rng: random.Random, picture: Picture, family: str) -> str:
    text = rng.choice(FAMILIES[family].questions)
    if family == "relation":
        return text.format(first=picture.facts["first"], second=picture.facts["second"])
    return text


def _name(rng: random.Random, picture: Picture, family: str, value: str) -> str:
    names = FAMILIES[family].values[value].names
    if family != "mark" or value not in WEAK_WORDS:
        return names[0] if rng.random() < 0.65 else rng.choice(names)
    if picture.plain:
        return names[0] if rng.random() < 0.8 else rng.choice(names[1:])
    return rng.choice(names[1:])


def _meaning(rng: random.Random, picture: Picture, family: str, value: str) -> str:
    descriptions = FAMILIES[family].values[value].descriptions
    if descriptions and rng.random() < 0.6:
        return rng.choice(descriptions)
    return _name(rng, picture, family, value)


def _options(rng: random.Random, family: str, truth: str, *, limit: int) -> list[str]:
    """The right value and some others, shuffled."""
    values = list(FAMILIES[family].values)
    if truth in WEAK_WORDS and rng.random() < 0.35:
        values = [*WEAK_WORDS, *rng.sample(values, rng.choice((0, 0, 1, 2)))]
        chosen = list(dict.fromkeys(values))
        rng.shuffle(chosen)
        return chosen[:limit] if truth in chosen[:limit] else [truth, *chosen[: limit - 1]]
    others = [value for value in values if value != truth]
    size = min(len(others), limit - 1, rng.choice((1, 2, 2, 2, 3, 3, 4, 5, 7, 11)))
    chosen = [truth, *rng.sample(others, size)]
    rng.shuffle(chosen)
    return chosen


def _dress(rng: random.Random, names: Sequence[str]) -> list[str]:
    """Writes all labels of a set in one style."""
    style = rng.random()
    if style < 0.78:
        return list(names)
    if style < 0.86:
        return [name.capitalize() for name in names]
    if style < 0.9:
        return [name.upper() for name in names]
    if style < 0.95:
        return [name.replace(" ", "_") for name in names]
    return [f"a {name}" for name in names]


def _words(rng: random.Random, count: int) -> list[str]:
    """Distinct labels without a meaning."""
    style = rng.random()
    if style < 0.12:
        return list("ABCDEFGHIJKL"[:count])
    if style < 0.2:
        return [f"class {number}" for number in range(1, count + 1)]
    words: dict[str, None] = {}
    while len(words) < count:
        words[made_up(rng)] = None
    return list(words)


def _listed(
    rng: random.Random, wording: str, labels: Sequence[str], right: int, *, definitions: Sequence[str]
) -> Question:
    pattern = _LISTS[0] if rng.random() < 0.65 else rng.choice(_LISTS)
    either = " or ".join([", ".join(labels[:-1]), labels[-1]])
    ending = pattern.format(comma=", ".join(labels), slash=" / ".join(labels), either=either)
    return Question("\n".join([wording, *definitions, ending]), labels[right], tuple(labels))


def _claim(rng: random.Random, picture: Picture, family: str) -> Question:
    """A statement that is right or wrong."""
    truth = picture.facts[family]
    right = rng.random() < 0.5
    value = truth if right else rng.choice([v for v in FAMILIES[family].values if v != truth])
    claim = FAMILIES[family].claim
    first, second = picture.facts.get("first", ""), picture.facts.get("second", "")
    text = claim.format(_name(rng, picture, family, value), first=first, second=second)
    yes, no = rng.choice((("yes", "no"), ("true", "false"), ("right", "wrong")))
    asked = rng.choice(("Is this so: {}?", "Right or wrong: {}.", "Does the picture show that {}?")).format(text)
    pair = [yes, no] if rng.random() < 0.5 else [no, yes]
    return _listed(rng, asked, pair, pair.index(yes if right else no), definitions=())


def _lookup(rng: random.Random) -> Question:
    """A question about the words of the prompt alone."""
    family = FAMILIES[rng.choice(list(FAMILIES))]
    values = rng.sample(list(family.values.values()), min(len(family.values), rng.choice((2, 2, 3, 4))))
    meanings = [rng.choice([*value.names, *value.descriptions]) for value in values]
    words = _words(rng, len(values))
    lines = [f"- {word}: {meaning}" for word, meaning in zip(words, meanings, strict=True)]
    right = rng.randrange(len(values))
    if rng.random() < 0.7:
        asked = rng.choice(("Which word means {}?", "What stands for {}?", "Name the word for {}."))
        return _listed(rng, asked.format(meanings[right]), words, right, definitions=lines)
    return Question("\n".join([f"What does {words[right]} mean?", *lines]), meanings[right])


def _free(rng: random.Random, wording: str) -> str:
    return wording + rng.choice(("", "", "\nAnswer in a few words.", "\nBe brief."))
