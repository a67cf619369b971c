"""The cut follows the data and is not misled by copies inside training."""

from __future__ import annotations

import numpy as np
import pytest

from vlm_tune.leakage.cut import choose_cut


def _null(middle: float, n: int = 400) -> np.ndarray:
    return np.tanh(np.random.default_rng(0).normal(np.arctanh(middle), 0.1, n)).astype(np.float32)


@pytest.mark.parametrize("middle", [0.3, 0.8, 0.97])
def test_the_cut_lies_in_the_tail_wherever_the_data_lie(middle: float) -> None:
    null, cut = _null(middle), choose_cut(_null(middle)).value
    assert cut is not None
    assert (null > cut).mean() < 0.01
    assert np.arctanh(cut) - np.arctanh(middle) == pytest.approx(0.3, abs=0.05)


def test_copies_in_training_hardly_move_it() -> None:
    clean = choose_cut(_null(0.5)).value
    dirty = choose_cut(np.concatenate([_null(0.5), np.full(80, 0.999, np.float32)])).value
    assert clean is not None
    assert dirty == pytest.approx(clean, abs=0.07)


def test_identical_photos_give_a_finite_cut() -> None:
    cut = choose_cut(np.ones(50, np.float32)).value
    assert cut is not None
    assert 0.99 < cut < 1


def test_too_few_photos_give_none_and_say_so() -> None:
    cut = choose_cut(np.array([0.5, 0.6], np.float32))
    assert cut.value is None
    assert "2 distinct training photos are too few" in cut.reason
