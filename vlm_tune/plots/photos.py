"""Figures about photos: how alike they are, how many there are of each class, and the photos themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vlm_tune.plots.style import ALERT, COLOURS, INK, MUTED, RULE, blank_figure, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike
    from PIL.Image import Image

__all__ = ["class_balance", "image_grid", "pair_grid", "similarity_histogram"]


def similarity_histogram(
    similarities: ArrayLike,
    *,
    null: ArrayLike | None = None,
    cut: float | None = None,
    title: str = "Nearest training image of each test image",
) -> Figure:
    """Draw how alike images are across the split, and where the line was drawn.

    Args:
        similarities: Cosine similarity of each evaluation-side image to its nearest training image.
        null: Similarities to expect without any copies, for scale.
        cut: Similarity above which a pair was looked at.
        title: Heading of the figure.
    """
    import numpy as np

    values = np.asarray(similarities, dtype=float).ravel()
    others = np.asarray([] if null is None else null, dtype=float).ravel()
    together = np.concatenate([values, others])
    low = float(together.min()) if together.size else 0.0
    bins = np.linspace(min(low, 0.98), max(1.0, float(together.max(initial=1.0))), 41).tolist()
    figure, axes = new_figure(7.0, 3.0, f"{title} (n = {values.size})")
    if others.size:
        axes.hist(others, bins, weights=np.full(others.size, max(values.size, 1) / others.size), color=RULE)
    axes.hist(values, bins, color=COLOURS[0], alpha=0.85)
    if cut is not None:
        axes.axvline(cut, color=ALERT, lw=1.4)
        above = int((values >= cut).sum())
        label = f" cut {cut:.3f}, {above} above"
        axes.text(cut, 0.96, label + " ", transform=axes.get_xaxis_transform(), fontsize=9, color=ALERT,
                  ha="left" if cut < (bins[0] + bins[-1]) / 2 else "right", va="top")  # fmt: skip
    axes.margins(y=0.16)
    scale = "; grey, scaled: what such photos have anyway" if others.size else ""
    axes.set_xlabel(f"cosine similarity{scale}", color=MUTED, fontsize=9)
    axes.set_ylabel("images", color=MUTED, fontsize=9)
    return figure


def class_balance(counts: Mapping[str, Mapping[str, int]], *, title: str = "Examples per class") -> Figure:
    """Draw how many examples each class has in each split.

    Args:
        counts: Split to class to number of examples.
        title: Heading of the figure.

    Examples:
        >>> figure = class_balance({"train": {"crack": 100, "dent": 100}, "test": {"crack": 33, "dent": 34}})
    """
    classes = list(dict.fromkeys(label for split in counts.values() for label in split))
    totals = ", ".join(f"{split} n = {sum(of.values())}" for split, of in counts.items())
    figure, axes = new_figure(7.0, 1.0 + 0.26 * max(1, len(classes)) * (len(counts) + 0.6), f"{title}: {totals}")
    height = 0.8 / max(1, len(counts))
    for turn, (split, of) in enumerate(counts.items()):
        places = [row + (turn - (len(counts) - 1) / 2) * height for row in range(len(classes))]
        values = [of.get(label, 0) for label in classes]
        axes.barh(places, values, height * 0.9, color=COLOURS[turn % len(COLOURS)], label=plain(split))
        for place, value in zip(places, values, strict=True):
            axes.text(value, place, f" {value}", va="center", fontsize=8, color=INK)
    axes.set_yticks(range(len(classes)), [plain(label) for label in classes])
    axes.invert_yaxis()
    axes.margins(x=0.08)
    if len(counts) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def image_grid(
    images: Sequence[Image], captions: Sequence[str], *, columns: int = 5, title: str | None = None
) -> Figure:
    """Draw images in a grid, a caption under each.

    Raises:
        ValueError: There are not as many captions as images.
    """
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images need as many captions, got {len(captions)}")
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    figure = blank_figure(1.7 * columns, 0.3 + 1.6 * rows, title if title is not None else f"{len(images)} images")
    for place, (image, caption) in enumerate(zip(images, captions, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(image.convert("RGB"))
        axes.set_axis_off()
        axes.set_title(plain(caption, 30), fontsize=8, color=INK, y=-0.16)
    return figure


def pair_grid(
    pairs: Sequence[tuple[Image, Image]], captions: Sequence[tuple[str, str]], *, title: str | None = None
) -> Figure:
    """Draw pairs of images side by side, two pairs to a row, a caption under each image.

    Raises:
        ValueError: There are not as many captions as pairs.
    """
    images = [image for pair in pairs for image in pair]
    texts = [text for pair in captions for text in pair]
    return image_grid(images, texts, columns=4, title=title if title is not None else f"{len(pairs)} pairs")
