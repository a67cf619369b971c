"""Cutting examples into jobs."""

from __future__ import annotations

import json
import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from vlm_tune.cost import price_of
from vlm_tune.errors import StorageError
from vlm_tune.predictors import BatchOptions, Gemini, GeminiOptions
from vlm_tune.predictors.gemini_batch_planning import Plan, Planner
from vlm_tune.predictors.gemini_batch_state import JobFolder
from vlm_tune.records import Example
from vlm_tune.testing import tiny_dataset

DATA = tiny_dataset(20, split=False)
MODEL = "gemini-3-flash-preview"
PRICE = price_of(MODEL, on=datetime.now(UTC).date(), batch=True)


def planner(folder: Path, batch: BatchOptions | None = None, *, options: GeminiOptions | None = None) -> Planner:
    gemini = Gemini(MODEL, api_key="key", options=options)
    return Planner(gemini, DATA.task, batch or BatchOptions(), JobFolder(folder), PRICE)


def waiting(num: int = len(DATA)) -> dict[str, Example]:
    return {f"k{place}": example for place, example in enumerate(DATA[:num])}


def keys_in(plan: Plan) -> list[str]:
    return [json.loads(line)["key"] for line in plan.requests.read_bytes().splitlines()]


def test_all_that_fits_goes_into_one_job_in_order(tmp_path: Path) -> None:
    left = waiting()
    plan = planner(tmp_path).prepare(left, reserved_usd=0.0)
    assert list(plan.keys) == keys_in(plan) == [f"k{place}" for place in range(len(DATA))]
    assert left == {}
    assert (plan.unreadable, plan.over_budget) == ((), False)


def test_jobs_are_cut_by_number_and_by_size_and_miss_nothing(tmp_path: Path) -> None:
    limits = [
        (BatchOptions(max_examples=7), 7),
        (BatchOptions(max_file_mb=0.02), 8),
        (BatchOptions(max_file_mb=1e-6), 1),
    ]
    for batch, most in limits:
        left, seen = waiting(), list[str]()
        while left:
            plan = planner(tmp_path, batch).prepare(left, reserved_usd=0.0)
            assert 1 <= len(plan.keys) <= most
            assert keys_in(plan) == list(plan.keys)
            seen += plan.keys
        assert seen == [*waiting()]


def test_the_budget_bounds_a_job_with_what_is_reserved(tmp_path: Path) -> None:
    asked = GeminiOptions(max_output_tokens=20)
    one = planner(tmp_path, options=asked).prepare(waiting(1), reserved_usd=0.0).most_usd
    assert one > 0
    capped = planner(tmp_path, options=asked.model_copy(update={"max_cost_usd": 5.5 * one}))
    left = waiting()
    first = capped.prepare(left, reserved_usd=0.0)
    assert (len(first.keys), first.over_budget, len(left)) == (5, True, len(DATA) - 5)
    assert first.most_usd == pytest.approx(5 * one)
    assert len(capped.prepare(left, reserved_usd=3 * one).keys) == 2
    assert capped.prepare(left, reserved_usd=5 * one).keys == ()


def test_unreadable_images_are_set_aside(tmp_path: Path) -> None:
    left = {"bad": Example(id="bad", image=b"no image", label="red"), **waiting(2)}
    plan = planner(tmp_path).prepare(left, reserved_usd=0.0)
    assert plan.keys == ("k0", "k1")
    assert [(answer.example_id, answer.outcome) for answer in plan.unreadable] == [("bad", "failed")]


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match=r"no space left to write .*requests\.jsonl"):
            planner(tmp_path).prepare(waiting(), reserved_usd=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "batch").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write .*batch"):
        planner(tmp_path / "batch").prepare(waiting(), reserved_usd=0.0)
