from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import normalizers

from vlm_tune.errors import ModelError, TaskError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm import VLM, generating, question
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.one_pass import OnePass
from vlm_tune.vlm.prompts import answer_ids
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import class_scores, reference_scores

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
def memory_for(rows: int) -> Iterator[list[int]]:
    """Let the model run out of memory above this many photos; yields the batch sizes tried."""
    tried: list[int] = []
    answer = OnePass.answer

    def limited(way: OnePass, prepared: Any) -> torch.Tensor:
        tried.append(len(prepared.photos))
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer(way, prepared)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OnePass, "answer", limited)
        yield tried


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


def test_what_the_right_label_gets_is_its_score_not_normalised(resident: Resident, examples: list[Example]) -> None:
    likelihoods: dict[str, float] = {}
    found = by_id(answers(resident, examples, TASK, likelihoods=likelihoods))
    assert likelihoods.keys() == found.keys()
    scores = reference_scores(resident.model, resident.processor, [example.read() for example in examples[:3]], TASK)
    expected = scores[:, TASK.classes.index("crack")].tolist()
    assert [likelihoods[example.id] for example in examples[:3]] == pytest.approx(expected, abs=1e-3)


def test_per_token_longer_labels_are_at_no_disadvantage(resident: Resident, examples: list[Example]) -> None:
    found = by_id(answers(resident, examples[:3], TASK, mode="score_per_token"))
    photos = [example.read() for example in examples[:3]]
    lengths = torch.tensor([len(answer_ids(resident.processor, name)) for name in TASK.classes])
    assert len(set(lengths.tolist())) > 1
    expected = (reference_scores(resident.model, resident.processor, photos, TASK) / lengths).log_softmax(-1)
    for example, row in zip(examples, expected.tolist(), strict=False):
        assert list((found[example.id].scores or {}).values()) == pytest.approx(row, abs=1e-4)


def test_batches_grow_to_what_keeps_a_gpu_busy(
    resident: Resident, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = question.Question(resident, TASK, "score", batch_size=None, model_version=None, likelihoods=None)
    assert (asked.size, asked._grows) == (8, False)
    asked._grows = True
    photos = [asked.read(example) for example in examples[:2]]
    monkeypatch.setattr(question, "_TOKENS_AT_ONCE", 100_000)
    list(asked.begin(asked.prepare(photos)))
    assert (asked.size, asked._grows) == (question._MOST_PHOTOS, False)


def test_labels_that_are_the_same_tokens_are_refused(
    resident: Resident, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = resident.processor.tokenizer.backend_tokenizer.normalizer
    resident.processor.tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents()]
    )
    try:
        task = Task(prompt="?", classes=("dent", "dént"))
        with pytest.raises(TaskError, match="'dent' and 'dént' are the same tokens"):
            next(answers(resident, examples, task))
    finally:
        resident.processor.tokenizer.backend_tokenizer.normalizer = same


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
    with memory_for(rows=2) as tried:
        found = by_id(answers(resident, examples, TASK, batch_size=8))
    assert found.keys() == expected.keys()
    for key, prediction in found.items():
        assert prediction.scores == pytest.approx(expected[key].scores, abs=1e-4)
    # 8 and 4 fail once; what was learnt holds for the batches after it.
    assert [size for size in tried if size > 2] == [8, 4]


def test_out_of_memory_for_one_photo_is_an_error(resident: Resident, examples: list[Example]) -> None:
    corrupt = Example(id="corrupt", image=b"not an image", label="a")
    found: list[Prediction] = []
    with memory_for(rows=0), pytest.raises(ModelError, match=r"alone; lower Task\.max_pixels"):
        found.extend(answers(resident, [examples[0], corrupt, *examples[1:]], TASK, batch_size=8))
    assert [prediction.example_id for prediction in found] == ["corrupt"]
    assert len(list(answers(resident, examples, TASK))) == len(examples)


@pytest.mark.parametrize("begun_ahead", [0, 1], ids=["one by one", "as on a GPU"])
def test_what_was_begun_before_a_photo_that_is_too_large_is_not_lost(
    begun_ahead: int, resident: Resident, examples: list[Example]
) -> None:
    asked = question.Question(resident, TASK, "score", batch_size=2, model_version=None, likelihoods=None)
    asked._begun_ahead = begun_ahead

    def batches() -> Iterator[question.Begun]:
        for start in (0, 2):
            photos = [asked.read(example) for example in examples[start : start + 2]]
            yield from asked.begin(asked.prepare(photos))
        raise ModelError("not enough memory for one alone")

    found: list[Prediction] = []
    with pytest.raises(ModelError, match="one alone"):
        found.extend(asked.finish_in_turn(batches()))
    assert {prediction.example_id for prediction in found} == {example.id for example in examples[:4]}


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


SEVERAL = Task(prompt="What is damaged?", classes=("crack", "dent", "a b"), multi_label=True)


def test_several_classes_are_the_likeliest_answer_and_the_chance_of_each(
    resident: Resident, examples: list[Example]
) -> None:
    found = by_id(answers(resident, examples[:4], SEVERAL, batch_size=3))
    for example in examples[:4]:
        assert isinstance(example.image, bytes)
        expected = reference_scores(resident.model, resident.processor, [example.image], SEVERAL).log_softmax(-1)
        prediction = found[example.id]
        assert prediction.label == prediction.raw == SEVERAL.answers[int(expected.argmax())]
        assert prediction.scores is not None
        assert tuple(prediction.scores) == SEVERAL.classes
        of_classes = class_scores(SEVERAL, SEVERAL.answers, expected)[0].tolist()
        assert list(prediction.scores.values()) == pytest.approx(of_classes, abs=1e-4)


def test_a_list_of_classes_has_room_and_is_parsed(
    tiny_qwen3_vl: Path, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = VLM(tiny_qwen3_vl, device="cpu").load()
    longest = answer_ids(resident.processor, "crack, dent, a b")
    rooms: list[int] = []

    def written(way: generating.Generator, inputs: dict[str, torch.Tensor]) -> list[str]:
        rooms.append(way._settings.max_new_tokens)
        return ["Dent and crack.", "None", "a dent"][: len(inputs["input_ids"])]

    monkeypatch.setattr(generating.Generator, "answer", written)
    found = list(answers(resident, examples[:3], SEVERAL, mode="generate", batch_size=3))
    assert sorted((prediction.outcome, prediction.label or "") for prediction in found) == [
        ("answered", "crack, dent"),
        ("answered", "none"),
        ("unparseable", ""),
    ]
    assert rooms == [generating.room_for_answer([longest])]


def test_more_classes_than_can_be_listed_are_only_generated(tiny_qwen3_vl: Path, examples: list[Example]) -> None:
    many = Task(prompt="?", classes=tuple("abcdefghijk"), multi_label=True)
    unread = VLM(tiny_qwen3_vl, device="cpu", dtype="bfloat16")
    with pytest.raises(TaskError, match=r'2,048 possible answers.*VLM\(..., answer="generate"\)'):
        next(unread.predict(examples, many))
    [prediction] = VLM(tiny_qwen3_vl, device="cpu", answer="generate").predict(examples[:1], many)
    assert prediction.outcome in ("answered", "unparseable")


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

    hook = resident.model.get_input_embeddings().register_forward_pre_hook(press)
    try:
        list(answers(resident, examples, TASK))
    finally:
        hook.remove()


def test_nothing_to_ask_is_no_work(resident: Resident) -> None:
    assert list(answers(resident, [], TASK)) == []
