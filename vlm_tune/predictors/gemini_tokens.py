"""How many tokens a Gemini call takes, before it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from vlm_tune.cost import Price, cost_of
from vlm_tune.images import EncodedImage
from vlm_tune.predictors.gemini_options import GeminiOptions
from vlm_tune.predictors.shots import Shot
from vlm_tune.records import Usage
from vlm_tune.task import Task

__all__ = ["IMAGE_TOKENS_SOURCE", "MOST_OUTPUT_TOKENS", "answer_tokens", "image_tokens", "most_cost", "prompt_tokens"]

IMAGE_TOKENS_SOURCE = "third-party quotation of ai.google.dev/gemini-api/docs/media-resolution, 2026-11-22"
"""Where the tokens of a photo are from."""
MOST_OUTPUT_TOKENS = 65_536
"""Longest answer, thinking included: ai.google.dev/gemini-api/docs/models/gemini-3-flash-preview, read 2026-11-22;
taken for the other models too."""

_BY_RESOLUTION = {"low": 280, "medium": 560, "high": 1120, None: 1120}
_BY_RESOLUTION_2 = {"low": 64, "medium": 256}
_TILE = 258
_SMALL = 384


def image_tokens(model: str, options: GeminiOptions, size: tuple[int, int]) -> int:
    """Return the tokens that a photo takes.

    Models from 3 on take a number that depends on the media resolution alone. Before, a photo is cut into tiles
    of 258 tokens each, unless it is small or the resolution is set below high; the rule for these older models was
    not checked at its source, and what the server counts corrects it.

    Args:
        model: Gemini's id.
        options: How it is asked.
        size: Width and height of the photo as it is sent, in pixels.

    Examples:
        >>> image_tokens("gemini-3-flash-preview", GeminiOptions(), (1024, 768))
        1120
        >>> image_tokens("gemini-2.5-flash", GeminiOptions(), (960, 540))
        1548
    """
    if not model.removeprefix("models/").startswith(("gemini-1", "gemini-2")):
        return _BY_RESOLUTION[options.media_resolution]
    if options.media_resolution in _BY_RESOLUTION_2:
        return _BY_RESOLUTION_2[options.media_resolution]
    if max(size) <= _SMALL:
        return _TILE
    side = max(1, math.floor(min(size) / 1.5))
    return _TILE * math.ceil(size[0] / side) * math.ceil(size[1] / side)


def prompt_tokens(text: str) -> int:
    """Return about how many tokens a text has: one for four bytes."""
    return math.ceil(len(text.encode()) / 4)


def answer_tokens(labels: Iterable[str]) -> int:
    """Return about how many tokens answers have, each with its end: one for two bytes, since names are rare words."""
    return sum(1 + math.ceil(len(label.encode()) / 2) for label in labels)


def most_cost(
    model: str, options: GeminiOptions, task: Task, photo: EncodedImage, shots: Sequence[Shot], price: Price
) -> float:
    """Return the most that one call may cost in dollars.

    A text has no more tokens than bytes, an answer no more than `max_output_tokens` or what the model can write.
    """
    photos = [photo, *(shot for shot, _ in shots)]
    pictures = sum(image_tokens(model, options, (one.width, one.height)) for one in photos)
    words = len(task.render().encode()) * len(photos) + sum(2 * len(label.encode()) + 8 for _, label in shots)
    written = options.max_output_tokens or MOST_OUTPUT_TOKENS
    return cost_of(Usage(input_tokens=pictures + words, output_tokens=written), price)
