from __future__ import annotations

import pytest

from vlm_tune.data.groups import finder, is_pattern, require_fit
from vlm_tune.errors import DataError
from vlm_tune.records import Example


def test_what_the_parentheses_capture_is_the_group() -> None:
    find = finder(r"exp(\d+)_num")
    assert find("blowhole/exp6_num_4727.jpg") == "6"
    assert find("blowhole/other.jpg") is None


@pytest.mark.parametrize(
    "pattern, reason", [("exp(", "not a regular expression"), ("exp", "has 0"), ("(a)(b)", "has 2")]
)
def test_what_is_no_pattern(pattern: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        finder(pattern)


def test_a_field_has_no_parenthesis() -> None:
    assert is_pattern(r"(part\d+)")
    assert not is_pattern("part")


def test_a_pattern_that_fits_nothing() -> None:
    examples = [Example(id="1.jpg", image=b"", label="a")]
    with pytest.raises(DataError, match=r"fits no image id \(first: '1\.jpg'\)"):
        require_fit("(part)", examples)
    require_fit("(part)", [*examples, Example(id="2.jpg", image=b"", label="a", group="g")])
