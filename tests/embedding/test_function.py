"""Any function is an embedder, if what it returns can be compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vlm_tune.embedding import FunctionEmbedder, PixelEmbedder, as_embedder, checked
from vlm_tune.errors import EmbeddingError
from vlm_tune.images import blank


def sizes(images: list[bytes]) -> list[list[int]]:
    return [[len(data), 1] for data in images]


def test_a_function_is_wrapped_and_an_embedder_stays_itself() -> None:
    wrapped = as_embedder(sizes)
    assert wrapped.name == "sizes"
    assert np.allclose(np.linalg.norm(wrapped.embed([blank(8, 8), blank(9, 9)]), axis=1), 1)
    pixels = PixelEmbedder()
    assert as_embedder(pixels) is pixels


def test_only_a_name_given_on_purpose_stands_for_the_vectors() -> None:
    assert FunctionEmbedder(sizes).fingerprint is None
    assert FunctionEmbedder(sizes, name="my sizes").fingerprint == "my sizes"


def test_tensors_and_half_precision_are_taken() -> None:
    rows = checked(torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16, requires_grad=True), "mine", ["a"])
    assert rows.dtype == np.float32
    assert np.allclose(rows, [[0.6, 0.8]])


def test_a_row_of_zeros_stays_one() -> None:
    assert checked([[0, 0], [0, 2]], "mine", ["a", "b"]).tolist() == [[0, 0], [0, 1]]


def test_the_first_image_with_nan_is_named() -> None:
    with pytest.raises(EmbeddingError, match=r"mine returned NaN or infinity for b.jpg \(and 1 more of 3\)"):
        checked([[1, 2], [np.nan, 0], [np.inf, 0]], "mine", ["a.jpg", "b.jpg", "c.jpg"])
