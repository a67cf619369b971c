"""Exact scoring of closed questions: each option's log-probability with its end token, given picture and prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from demo_model.fast import Fast
from demo_model.feed import Encoder
from demo_model.pictures import SIZES, draw
from demo_model.questions import Question, closed
from demo_model.vocabulary import FAMILIES

if TYPE_CHECKING:
    from transformers import Qwen3VLForConditionalGeneration

STYLES = ("names", "described", "made_up")
"""Labels that are real names, real names with definitions, and made-up words with definitions."""
_NOBODY = {"first": "", "second": ""}


@torch.no_grad()
def answers(
    model: Qwen3VLForConditionalGeneration,
    encoder: Encoder,
    pixels: NDArray[np.uint8],
    questions: Sequence[Question],
) -> list[str]:
    """The likeliest option of each question.

    Args:
        model: The model, on any device.
        encoder: Encodes prompt and option.
        pixels: Questions x height x width x 3.
        questions: One a picture, each with options.
    """
    device = model.device
    fast = Fast(model)
    seen = fast.see(torch.from_numpy(pixels).to(device))
    rows = [(*encoder(q.prompt, option), index) for index, q in enumerate(questions) for option in q.options]
    longest = max(len(tokens) for tokens, _, _ in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    wanted = torch.zeros((len(rows), longest - 1))
    for number, (tokens, start, _) in enumerate(rows):
        ids[number, : len(tokens)] = torch.tensor(tokens)
        wanted[number, start - 1 : len(tokens) - 1] = 1
    ids, wanted = ids.to(device), wanted.to(device)
    prefix = torch.tensor(encoder.prefix, device=device)
    scores: list[float] = []
    for at in range(0, len(rows), 512):
        index = torch.tensor([picture for _, _, picture in rows[at : at + 512]], device=device)
        some = ids[at : at + 512]
        logits = fast.logits(fast.think(prefix, seen.take(index), some)[:, :-1]).log_softmax(-1)
        gained = logits.gather(-1, some[:, 1:, None])[..., 0] * wanted[at : at + 512]
        scores += gained.sum(1).tolist()
    result, at = [], 0
    for question in questions:
        some_scores = scores[at : at + len(question.options)]
        result.append(question.options[int(np.argmax(some_scores))])
        at += len(question.options)
    return result


def held_out(
    model: Qwen3VLForConditionalGeneration, encoder: Encoder, *, seed: int, num_pictures: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Accuracy and chance per family and style of label, on new pictures and wordings that training never saw."""
    rng, words = np.random.default_rng([seed, 1]), random.Random(seed)
    pictures = [draw(rng, SIZES[0]) for _ in range(num_pictures)]
    result: dict[str, dict[str, tuple[float, float]]] = {}
    for family, about in FAMILIES.items():
        fitting = [picture for picture in pictures if family in picture.facts][:400]
        if not fitting:
            continue
        pixels = np.stack([picture.pixels for picture in fitting])
        result[family] = {}
        for style in STYLES:
            questions = [
                closed(words, one, family, wording=about.held_out.format_map({**_NOBODY, **one.facts}), style=style)
                for one in fitting
            ]
            given = answers(model, encoder, pixels, questions)
            right = np.mean([answer == q.answer for answer, q in zip(given, questions, strict=True)])
            chance = np.mean([1 / len(q.options) for q in questions])
            result[family][style] = (float(right), float(chance))
    return result
