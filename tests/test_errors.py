from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune import errors
from vlm_tune.errors import ImageError, MissingExtraError, UnknownLabelError, VlmTuneError, nearest


def test_everything_raised_on_purpose_has_one_root() -> None:
    classes = [
        value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert len(classes) > 10
    assert all(issubclass(value, VlmTuneError) for value in classes)
    assert {value.__name__ for value in classes} | {"nearest"} == set(errors.__all__)


def test_the_drawn_tree_is_the_real_one() -> None:
    assert errors.__doc__ is not None
    parents: list[str] = []
    for line in errors.__doc__.splitlines():
        if (match := re.search(r"\b([A-Z]\w+Error)\b", line)) is None:
            continue
        depth = match.start() // 4
        parents[depth:] = [match.group(1)]
        if depth:
            assert getattr(errors, parents[depth]).__bases__ == (getattr(errors, parents[depth - 1]),)


def test_an_unknown_label_carries_itself_and_the_nearest() -> None:
    error = UnknownLabelError("Scrach", ["crack", "dent", "scratch"], where="row 3")
    assert (error.label, error.nearest) == ("Scrach", ("scratch", "crack"))
    assert str(error) == (
        "row 3: label 'Scrach' is not one of the classes (crack, dent, scratch); did you mean 'scratch' or 'crack'?"
    )


def test_many_classes_are_cut_short() -> None:
    message = str(UnknownLabelError("zzz", [f"class {n}" for n in range(100)]))
    assert "class 11, ..." in message
    assert "class 12" not in message
    assert "did you mean" not in message


def test_an_image_error_carries_the_image_and_the_reason() -> None:
    error = ImageError(Path("a.jpg"), "it is empty")
    assert (error.image, error.reason, str(error)) == (
        Path("a.jpg"),
        "it is empty",
        "cannot read image a.jpg: it is empty",
    )


def test_a_missing_extra_prints_the_pip_line() -> None:
    error = MissingExtraError("ray", extra="ray", purpose="the Ray backend")
    assert error.install == 'pip install "vlm-tune[ray]"'
    assert error.install in str(error)
    assert error.package == "ray"


@pytest.mark.parametrize("name", ["scratch", "Scratch", " SCRATCH "])
def test_case_and_spaces_come_first(name: str) -> None:
    assert nearest(name, ["crack", "scratches", "scratch"])[0] == "scratch"


@given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=8), st.integers(1, 4))
def test_nearest_gives_known_names_only(name: str, known: list[str], limit: int) -> None:
    found = nearest(name, known, limit=limit)
    assert set(found) <= set(known)
    assert len(found) <= limit
