"""What is noted of every training alike."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from vlm_tune.experiments.noted import Rightness, rows_of
from vlm_tune.records import Example


def test_right_answers_are_letters_in_a_file_and_come_back() -> None:
    known: TypeAdapter[Rightness | None] = TypeAdapter(Rightness | None)
    assert known.dump_json((True, False, True)) == b'"101"'
    assert known.validate_json(b'"101"') == (True, False, True)
    assert known.dump_json(None) == b"null"
    assert known.dump_python((True,)) == (True,)
    with pytest.raises(ValidationError):
        known.validate_json(b'"10x"')


def test_photos_are_known_by_content() -> None:
    one, same, other = (rows_of([Example(id="1.png", image=image, label="dent")]) for image in (b"a", b"a", b"b"))
    assert one == same != other
    assert one[0][:2] == ("1.png", "dent")
