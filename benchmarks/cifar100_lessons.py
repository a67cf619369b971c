"""What the small model is pretrained on: views of the images, made on the GPU, and questions answered by script.

No answer needs an image's fine label. A script knows the superclass of an image, what colour and how bright a view of
it is, and how it has turned it; and, from the lists of classes alone, which classes a superclass has: asked what a
photo may show, any class of its superclass that the question offers is an answer.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from cifar100_data import QUESTION
from torch import Tensor
from torch.nn import functional
from transformers import ProcessorMixin

import vlm_tune as vt

COLOURS = {
    "black": (20, 20, 20),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (190, 45, 45),
    "orange": (230, 140, 40),
    "yellow": (230, 210, 70),
    "green": (70, 120, 50),
    "blue": (70, 120, 200),
    "brown": (110, 75, 45),
    "pink": (225, 150, 170),
}
LIGHT = ("dark", "medium", "bright")
TURNS = ("upright", "turned left", "upside down", "turned right")
_KIND = ("What kind of thing is this?", "Which group does this belong to?", "Sort this photo.", "What do you see?")
_MAYBE = ("What could this be?", "Name a thing that this may be.", "Guess the thing.")
_PROMPTS = 64
_LISTS = 16


@dataclass(frozen=True)
class Texts:
    """Questions with their answers, a row each: what follows the image.

    Attributes:
        ids: Token ids, rows x length, padded on the right.
        answers: Which of them belong to the answer.
    """

    ids: Tensor
    answers: Tensor

    def __getitem__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and answers of some rows."""
        return self.ids[rows], self.answers[rows]


class Lessons:
    """All texts, on one device, and which row belongs to what a view shows.

    Args:
        processor: The model's processor.
        members: Superclass to its classes.
        device: Where the tensors are.
        seed: Decides which classes a question offers, and in what order.
    """

    def __init__(
        self, processor: ProcessorMixin, members: Mapping[str, Sequence[str]], *, device: torch.device, seed: int = 0
    ) -> None:
        self.members, self.device = members, device
        encoder, draw, kinds = _Encoder(processor), random.Random(seed), {kind: [kind] for kind in members}
        self.prefix = torch.tensor(encoder.prefix, device=device)
        self.kinds = encoder(_questions(draw, _KIND, kinds, count=_PROMPTS), device)
        self.maybe = encoder(_questions(draw, _MAYBE, members, count=_PROMPTS, one_each=True), device)
        self.lists = encoder(_questions(draw, _MAYBE, members, count=_LISTS), device)
        self.looks = encoder(list(_descriptions(list(members))), device)
        self._palette = torch.tensor(list(COLOURS.values()), device=device) / 127.5 - 1

    def about(self, table: Texts, superclasses: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and answers of a question for each superclass, any of those in a table."""
        count = len(self.members)
        questions = torch.randint(len(table.ids) // count, superclasses.shape, device=self.device)
        return table[questions * count + superclasses]

    def look(self, views: Tensor, superclasses: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
        """Return ids and answers of a question about each view's looks, or of a whole description."""
        small = functional.adaptive_avg_pool2d(views, 16).flatten(2).transpose(1, 2)
        votes = functional.one_hot(torch.cdist(small, self._palette[None]).argmin(2), len(COLOURS)).sum(1)
        light = views.mean((1, 2, 3)).mul(3).add(1.5).long().clamp(0, 2)
        colour, count = votes.argmax(1), len(self.members)
        described = ((light * len(COLOURS) + colour) * count + superclasses) * len(TURNS) + turns
        starts = torch.tensor([0, len(COLOURS), len(COLOURS) + len(LIGHT)], device=self.device)
        short = torch.stack([colour, light, turns], 1) + starts
        choice = torch.randint(5, colour.shape, device=self.device)
        of_looks = short.gather(1, choice.clamp(max=2)[:, None])[:, 0]
        # Turns are asked about twice as often as the rest: they say most about the shapes in a photo.
        of_looks = torch.where(choice == 3, short[:, 2], of_looks)
        return self.looks[torch.where(choice == 4, described + int(starts[-1]) + len(TURNS), of_looks)]


def texts(members: Mapping[str, Sequence[str]]) -> Iterable[str]:
    """Yield text for the tokenizer in which every word of a question or an answer occurs often."""
    names = [*members, *(name for several in members.values() for name in several), *COLOURS, *LIGHT, *TURNS]
    for name in names:
        yield from [f"Answer with one of: {name}, {name}.", name, f"A photo of {name}.", f"a_{name}"] * 20
    yield from [*_KIND, *_MAYBE, QUESTION] * 20
    yield from (f"{question} {answer}" for question, answer in _descriptions(list(members)))


def _questions(
    draw: random.Random,
    wordings: Sequence[str],
    members: Mapping[str, Sequence[str]],
    *,
    count: int,
    one_each: bool = False,
) -> list[tuple[str, str]]:
    """Return questions that offer the members of all superclasses, each with an answer for each superclass in turn.

    Every superclass gets every question: what is asked gives nothing away about what is right.
    """
    rows = []
    for _ in range(count):
        offered = {kind: [draw.choice(names)] if one_each else list(names) for kind, names in members.items()}
        classes = [name for names in offered.values() for name in names]
        draw.shuffle(classes)
        question = vt.Task(prompt=draw.choice(wordings), classes=tuple(classes)).render()
        rows += [(question, draw.choice(names)) for names in offered.values()]
    return rows


def _descriptions(kinds: Sequence[str]) -> Iterable[tuple[str, str]]:
    yield from (("Which colour is most of it?", colour) for colour in COLOURS)
    yield from (("How bright is it?", light) for light in LIGHT)
    yield from (("Which way up is it?", turn) for turn in TURNS)
    for light in LIGHT:
        for colour in COLOURS:
            for kind in kinds:
                yield from (("Describe this.", f"{light} {colour} photo of {kind}, {turn}") for turn in TURNS)


class _Encoder:
    """Turns questions and answers into the tokens that scoring and training take, but for the image's."""

    def __init__(self, processor: ProcessorMixin) -> None:
        from PIL import Image

        self.processor = processor
        tokenizer, image = processor.tokenizer, processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        inputs = processor(images=[Image.new("RGB", (32, 32))], text=[self._asked("?")], add_special_tokens=False)
        found = list(inputs["input_ids"][0])
        last = len(found) - found[::-1].index(image)
        self.prefix: list[int] = found[: found.index(image)]
        # Some processors put a token behind the image, others have it in the chat template.
        self._behind = tokenizer.decode(found[last:]).split("?")[0]

    def _asked(self, question: str) -> str:
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
        return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def __call__(self, rows: Sequence[tuple[str, str]], device: torch.device) -> Texts:
        tokenizer = self.processor.tokenizer
        rest = [self._asked(question).split(self.processor.image_token, 1)[1] for question, _ in rows]
        tails = [f"{self._behind}{one.removeprefix(self._behind)}" for one in rest]
        questions = tokenizer(tails, add_special_tokens=False)["input_ids"]
        answers = tokenizer([f"{answer}{tokenizer.eos_token}" for _, answer in rows], add_special_tokens=False)
        pairs = list(zip(questions, answers["input_ids"], strict=True))
        longest = max(len(question) + len(answer) for question, answer in pairs)
        ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
        marked = torch.zeros((len(rows), longest), dtype=torch.bool)
        for row, (question, answer) in enumerate(pairs):
            end = len(question) + len(answer)
            ids[row, :end] = torch.tensor([*question, *answer])
            marked[row, len(question) : end] = True
        return Texts(ids.to(device), marked.to(device))


@dataclass(frozen=True)
class Mix:
    """How the views of a batch were mixed: with which other image, and how much of the own one is left."""

    partner: Tensor
    share: Tensor


def augment(images: Tensor, side: int, *, turns: Tensor | None = None) -> Tensor:
    """Return one view of each image: cut out, mirrored, tilted, coloured otherwise.

    Args:
        images: uint8 of shape (n, 3, height, width).
        side: Height and width of the views.
        turns: Quarter turns to the left of each view.

    Returns:
        Values -1 to 1 of shape (n, 3, side, side).
    """
    count, device = len(images), images.device

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty((count, *shape), device=device).uniform_(low, high)

    area, ratio, angle = between(0.25, 1).sqrt(), between(-0.25, 0.25).exp(), between(-0.25, 0.25)
    if turns is not None:
        angle = angle + turns * (math.pi / 2)
    wide, high = (area * ratio).clamp(max=1), (area / ratio).clamp(max=1)
    mirror = torch.where(between(0, 1) < 0.5, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    # Mirrored before it is turned: a photo that was turned left looks so, mirrored or not.
    across = torch.stack([wide * mirror * cos, -wide * mirror * sin, (1 - wide) * between(-1, 1)], 1)
    down = torch.stack([high * sin, high * cos, (1 - high) * between(-1, 1)], 1)
    where = functional.affine_grid(torch.stack([across, down], 1), [count, 3, side, side], align_corners=False)
    x = functional.grid_sample(images.float() / 127.5 - 1, where, padding_mode="reflection", align_corners=False)
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(grey, x, torch.where(between(0, 1, 1, 1, 1) < 0.15, 0.0, between(0.5, 1.5, 1, 1, 1)))
    tint, contrast, light = between(-0.1, 0.1, 3, 1, 1), between(0.6, 1.4, 1, 1, 1), between(-0.3, 0.3, 1, 1, 1)
    middle = x.mean((1, 2, 3), keepdim=True)
    return ((x - middle) * contrast + middle + light + tint).clamp(-1, 1)


def mix(views: Tensor) -> tuple[Tensor, Mix]:
    """Return the views with another one in it: half of them as CutMix, 3 in 10 as MixUp, the others not at all."""
    count, side, device = len(views), views.shape[-1], views.device
    partner, share = torch.randperm(count, device=device), torch.rand(count, device=device)
    kind = torch.rand(count, device=device)
    share = torch.where(kind < 0.8, share, 1.0)
    half = (1 - share).sqrt() * side / 2
    centre = torch.rand((2, count), device=device) * side
    at = torch.arange(side, device=device) + 0.5
    inside = (at - centre[..., None]).abs() < half[:, None]
    box = (inside[0][:, :, None] & inside[1][:, None, :])[:, None]
    is_cut = (kind < 0.5)[:, None, None, None]
    kept = torch.where(is_cut, 1 - box.float(), share[:, None, None, None])
    mixed = views * kept + views[partner] * (1 - kept)
    # What a box that reaches over the edge really covers.
    return mixed, Mix(partner, kept.mean((1, 2, 3)))
