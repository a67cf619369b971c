from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vlm_tune.errors import ModelError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm import VLM
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.resident import Resident

TASK = Task(prompt="What is it?", classes=("a", "a b", "crack", "dent on a panel"))
SIZES = [(32, 32), (96, 40), (40, 96), (64, 64), (150, 110)]


@pytest.fixture
def examples(noise_png: Callable[..., bytes]) -> list[Example]:
    return [
        Example(id=f"{number}.png", image=noise_png(*SIZES[number % 5], number), label="crack") for number in range(11)
    ]


@pytest.fixture
def resident(tiny_vlm: Path) -> Resident:
    return VLM(tiny_vlm, device="cpu").load()


def by_id(predictions: Iterator[Prediction]) -> dict[str, Prediction]:
    found = list(predictions)
    assert len({prediction.example_id for prediction in found}) == len(found)
    return {prediction.example_id: prediction for prediction in found}


@contextmanager
def memory_for(resident: Resident, rows: int) -> Iterator[list[int]]:
    """Let the model run out of memory above this many photos; yields the batch sizes tried."""
    tried: list[int] = []

    def check(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if "pixel_values" in kwargs:
            tried.append(len(kwargs["input_ids"]))
            if tried[-1] > rows:
                raise torch.OutOfMemoryError("CUDA out of memory")

    hook = resident.model.register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield tried
    finally:
        hook.remove()


def test_answers_do_not_depend_on_batch_size_or_order(resident: Resident, examples: list[Example]) -> None:
    alone = by_id(answers(resident, examples, TASK, batch_size=1))
    assert alone.keys() == {example.id for example in examples}
    for size in (2, 3, 16):
        shuffled = random.Random(size).sample(examples, len(examples))
        batched = by_id(answers(resident, shuffled, TASK, batch_size=size))
        for key, prediction in batched.items():
            assert prediction.label == alone[key].label
            assert prediction.scores == pytest.approx(alone[key].scores, abs=1e-4)


def test_a_prediction_says_everything(resident: Resident, examples: list[Example]) -> None:
    for prediction in answers(resident, examples, TASK, model_version="tiny@1"):
        assert prediction.outcome == "answered"
        assert prediction.scores is not None
        assert tuple(prediction.scores) == TASK.classes
        assert sum(torch.tensor(list(prediction.scores.values())).exp()).item() == pytest.approx(1, abs=1e-6)
        assert prediction.label == prediction.raw == max(TASK.classes, key=prediction.scores.__getitem__)
        assert prediction.latency_s is not None
        assert prediction.latency_s > 0
        assert prediction.model_version == "tiny@1"


def test_a_photo_that_cannot_be_read_fails_alone(resident: Resident, examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    bad = [
        Example(id="corrupt", image=b"not an image", label="a"),
        Example(id="missing", image=tmp_path / "missing.jpg", label="a"),
        Example(id="empty", image=tmp_path / "empty.jpg", label="a"),
    ]
    found = by_id(answers(resident, [*examples[:3], *bad, *examples[3:]], TASK, batch_size=4))
    assert len(found) == len(examples) + 3
    for example in bad:
        assert found[example.id].outcome == "failed"
        assert "cannot read image" in (found[example.id].error or "")
    assert all(found[example.id].outcome == "answered" for example in examples)


def test_a_photo_that_the_processor_refuses_fails_alone(
    tiny_qwen3_vl: Path, examples: list[Example], noise_png: Callable[..., bytes]
) -> None:
    ribbon = Example(id="ribbon", image=noise_png(2100, 8), label="a")
    resident = VLM(tiny_qwen3_vl, device="cpu").load()
    found = by_id(answers(resident, [ribbon, *examples], TASK, batch_size=4))
    assert found["ribbon"].outcome == "failed"
    assert "aspect ratio" in (found["ribbon"].error or "")
    assert all(found[example.id].outcome == "answered" for example in examples)


def test_out_of_memory_halves_the_batch_and_goes_on(resident: Resident, examples: list[Example]) -> None:
    expected = by_id(answers(resident, examples, TASK))
    with memory_for(resident, rows=2) as tried:
        found = by_id(answers(resident, examples, TASK, batch_size=8))
    assert found.keys() == expected.keys()
    for key, prediction in found.items():
        assert prediction.scores == pytest.approx(expected[key].scores, abs=1e-4)
    # 8 and 4 fail once; what was learnt holds for the batches after it.
    assert [size for size in tried if size > 2] == [8, 4]


def test_out_of_memory_for_one_photo_is_an_error(resident: Resident, examples: list[Example]) -> None:
    with memory_for(resident, rows=0), pytest.raises(ModelError, match=r"alone; lower Task\.max_pixels"):
        list(answers(resident, examples, TASK, batch_size=2))
    assert len(list(answers(resident, examples, TASK))) == len(examples)


def test_scores_that_are_no_numbers_are_failures(resident: Resident, examples: list[Example]) -> None:
    hook = resident.model.lm_head.register_forward_hook(lambda module, args, output: output * float("nan"))
    try:
        found = list(answers(resident, examples[:2], TASK))
    finally:
        hook.remove()
    assert [prediction.outcome for prediction in found] == ["failed", "failed"]
    assert "not finite" in (found[0].error or "")


def test_generated_words_are_parsed_strictly(resident: Resident, examples: list[Example]) -> None:
    found = list(answers(resident, examples[:3], TASK, mode="generate"))
    # Random weights write nonsense: no class, and no class is made of it.
    assert {prediction.outcome for prediction in found} == {"unparseable"}
    assert all(prediction.raw is not None and prediction.scores is None for prediction in found)

    class Echo(Task):
        """The same question, with the nonsense as a spelling of a class."""

        def parse(self, text: str) -> str | None:
            return "a" if text == found[0].raw else super().parse(text)

    task = Echo(prompt=TASK.prompt, classes=TASK.classes)
    again = by_id(answers(resident, examples[:3], task, mode="generate"))[found[0].example_id]
    assert (again.outcome, again.label, again.raw) == ("answered", "a", found[0].raw)


def test_an_interrupted_run_leaves_everything_usable(resident: Resident, examples: list[Example]) -> None:
    running = answers(resident, examples, TASK, batch_size=2)
    next(running)
    running.close()
    with pytest.raises(KeyboardInterrupt):
        _interrupt(resident, examples)
    assert not resident.model.training
    assert len(list(answers(resident, examples, TASK))) == len(examples)


def _interrupt(resident: Resident, examples: list[Example]) -> None:
    def press(module: object, args: object) -> None:
        raise KeyboardInterrupt

    hook = resident.model.register_forward_pre_hook(press)
    try:
        list(answers(resident, examples, TASK))
    finally:
        hook.remove()


def test_nothing_to_ask_is_no_work(resident: Resident) -> None:
    assert list(answers(resident, [], TASK)) == []
