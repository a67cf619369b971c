"""Photos of noise for the cases in `helpers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from transformers import PreTrainedModel, ProcessorMixin

from tests.vlm.fused import helpers


@pytest.fixture
def make_batch(noise_png: Callable[..., bytes]) -> Callable[..., helpers.Batch]:
    """Make a batch: (model, processor, sizes of photos, lengths of answers) -> batch."""

    def make(
        model: PreTrainedModel, processor: ProcessorMixin, sizes: Sequence[tuple[int, int]], answers: Sequence[int]
    ) -> helpers.Batch:
        photos = [noise_png(width, height, seed) for seed, (width, height) in enumerate(sizes)]
        return helpers.make_batch(model, processor, photos, answers)

    return make
