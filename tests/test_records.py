from __future__ import annotations

import hashlib
import importlib
import json
import math
import pkgutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import vlm_tune
from vlm_tune.errors import ImageError, StorageError
from vlm_tune.records import Estimate, Example, Money, Prediction, SavedRecord, Usage


class TestExample:
    def test_it_is_frozen_and_strict(self) -> None:
        example = Example(id="1", image=b"", label="dent")
        with pytest.raises(ValidationError, match="frozen"):
            example.label = "crack"
        with pytest.raises(ValidationError, match="Extra inputs"):
            Example(id="1", image=b"", label="dent", lable="x")  # type: ignore[call-arg]

    @pytest.mark.parametrize("field", ["id", "label"])
    def test_names_must_not_be_empty(self, field: str) -> None:
        with pytest.raises(ValidationError, match=field):
            Example(**{"id": "1", "image": b"", "label": "dent", field: ""})  # type: ignore[arg-type]

    def test_the_hash_is_that_of_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(b"pixels")
        digest = hashlib.sha256(b"pixels").hexdigest()
        assert Example(id="1", image=tmp_path / "a.jpg", label="x").content_hash == digest
        assert Example(id="2", image=b"pixels", label="y").content_hash == digest

    def test_a_copy_with_another_image_has_another_hash(self) -> None:
        example = Example(id="1", image=b"before", label="x")
        before = example.content_hash
        assert example.model_copy(update={"label": "y"}).content_hash == before
        assert example.model_copy(update={"image": b"after"}).content_hash == hashlib.sha256(b"after").hexdigest()
        assert example.content_hash == before

    def test_a_missing_file_is_an_image_error(self, tmp_path: Path) -> None:
        example = Example(id="1", image=tmp_path / "gone.jpg", label="x")
        with pytest.raises(ImageError, match="No such file") as caught:
            example.content_hash
        assert caught.value.image == tmp_path / "gone.jpg"

    def test_neither_bytes_nor_metadata_fill_the_screen(self) -> None:
        example = Example(id="1", image=b"x" * 1000, label="dent", metadata={"gps": "secret"})
        assert repr(example) == "Example(id='1', label='dent', group=None)"


class TestPrediction:
    def test_a_label_comes_with_an_answer_only(self) -> None:
        assert Prediction(example_id="1", outcome="answered", label="dent").label == "dent"
        assert Prediction(example_id="1", outcome="refused", raw="I cannot").label is None
        with pytest.raises(ValidationError, match="exactly when"):
            Prediction(example_id="1", outcome="answered")
        with pytest.raises(ValidationError, match="exactly when"):
            Prediction(example_id="1", outcome="failed", label="dent")

    @given(
        st.builds(
            Prediction,
            example_id=st.text(min_size=1),
            outcome=st.just("answered"),
            label=st.text(min_size=1),
            scores=st.none() | st.dictionaries(st.text(), st.floats(-1e6, 0), max_size=3),
            raw=st.none() | st.text(),
            latency_s=st.none() | st.floats(0, 1e6),
            usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 10**9)),
            cost_usd=st.none() | st.floats(0, 1e3),
        )
    )
    def test_json_round_trip(self, prediction: Prediction) -> None:
        assert Prediction.model_validate_json(prediction.model_dump_json()) == prediction

    @pytest.mark.parametrize("field, value", [("latency_s", -1), ("cost_usd", -0.1), ("outcome", "maybe")])
    def test_impossible_values(self, field: str, value: object) -> None:
        with pytest.raises(ValidationError, match=field):
            Prediction.model_validate({"example_id": "1", "outcome": "failed", field: value})


class TestNumbers:
    def test_an_estimate_prints_its_interval_and_size(self) -> None:
        estimate = Estimate(value=0.8878, low=0.8101, high=0.9362, n=98, method="Wilson 95%")
        assert str(estimate) == "0.888 [0.810, 0.936] (n=98)"
        assert estimate.percent() == "88.8 % [81.0, 93.6]"

    def test_a_difference_prints_its_sign(self) -> None:
        difference = Estimate(value=0.0612, low=-0.0151, high=0.1438, n=98, method="Tango 95%")
        assert difference.points() == "+6.1 points [-1.5, +14.4]"

    @pytest.mark.parametrize("usd, shown", [(0, "$0.00"), (0.0123, "$0.0123"), (0.1, "$0.10"), (12.345, "$12.35")])
    def test_money_keeps_small_amounts_visible(self, usd: float, shown: str) -> None:
        assert str(Money(usd=usd, basis="3 tokens")) == shown

    def test_money_is_never_negative_or_nan(self) -> None:
        for usd in (-1.0, math.nan):
            with pytest.raises(ValidationError):
                Money(usd=usd, basis="")


def saved_kinds() -> list[type[SavedRecord]]:
    """Every record with a file of its own, as the whole package defines them."""
    for module in pkgutil.walk_packages(vlm_tune.__path__, "vlm_tune."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = [], [SavedRecord]
    while left:
        kinds = left.pop().__subclasses__()
        found += [kind for kind in kinds if "saved_as" in vars(kind)]
        left += kinds
    return found


def test_no_file_is_taken_for_another(tmp_path: Path) -> None:
    kinds = {kind.saved_as: kind for kind in saved_kinds() if kind.__module__.startswith("vlm_tune.")}
    assert {"merge report", "overfit report", "label audit", "learning curve", "sweep", "profile"} <= set(kinds)
    path = tmp_path / "it.json"
    for words, kind in kinds.items():
        for content, why in (("[]", "is not a saved"), ('{"saved_as": "something else"}', "is not a saved")):
            path.write_text(content)
            with pytest.raises(StorageError, match=f"it.json {why} {words}"):
                kind.load(path)
        path.write_text(json.dumps({"saved_as": words, "no such field": 1}))
        with pytest.raises(StorageError, match=f"is not a saved {words} of this version"):
            kind.load(path)
        path.write_text('{"saved_as":')
        with pytest.raises(StorageError, match="is not valid JSON"):
            kind.load(path)
