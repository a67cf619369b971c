"""Following up the likely answers only: what it says is what scoring all of them says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import PreTrainedModel, ProcessorMixin

from vlm_tune.errors import ModelError
from vlm_tune.images import decode
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm import VLM, beginnings, likely
from vlm_tune.vlm.answering import answers
from vlm_tune.vlm.beginnings import TOLERANCE, Beginnings
from vlm_tune.vlm.fused.packing import Packed
from vlm_tune.vlm.likely import Likely, Unfinished
from vlm_tune.vlm.one_pass import OnePass
from vlm_tune.vlm.prompts import answer_ids, prompt_text
from vlm_tune.vlm.question import Question
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import inference, reference_scores
from vlm_tune.vlm.tree import AnswerTree

PARTS = ("crack", "dent", "scratch", "a", "a b", "panel")
TASK = Task(prompt="What is it?", classes=(*PARTS, *(f"{one} on a {two}" for one in PARTS for two in PARTS)))
Loaded = tuple[PreTrainedModel, ProcessorMixin]


@pytest.fixture
def resident(tiny_vlm: Path) -> Resident:
    return VLM(tiny_vlm, device="cpu").load()


@pytest.fixture
def examples(photos: list[bytes]) -> list[Example]:
    return [Example(id=f"{number}.png", image=photo, label="crack") for number, photo in enumerate(photos)]


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Trees and nodes of every second pass."""
    seen: list[tuple[int, int]] = []
    states = OnePass.states

    def watched(way: OnePass, packed: Packed, pixels: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        if packed.behind is not None:
            seen.extend(packed.runs)
        return states(way, packed, pixels)

    monkeypatch.setattr(OnePass, "states", watched)
    return seen


def by_id(predictions: Iterator[Prediction]) -> dict[str, Prediction]:
    return {prediction.example_id: prediction for prediction in predictions}


def expected(resident: Resident, photos: list[bytes]) -> torch.Tensor:
    return reference_scores(resident.model, resident.processor, photos, TASK)


def finished(way: Likely, photos: list[bytes]) -> torch.Tensor:
    found: torch.Tensor | Unfinished = way.answer(way.prepare([way.read(decode(photo)) for photo in photos]))
    while isinstance(found, Unfinished):
        found = found.rest(found.seen)
    return found


def likely_of(resident: Resident) -> Likely:
    prompt, labels = prompt_text(resident.processor, TASK), TASK.classes
    found = likely.likely(
        resident.model, resident.processor, prompt, [answer_ids(resident.processor, label) for label in labels]
    )
    assert found is not None
    return found


@pytest.mark.parametrize("begun_ahead", [0, 2], ids=["one by one", "as on a GPU"])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_answers_equal_brute_force(
    batch_size: int, begun_ahead: int, resident: Resident, photos: list[bytes], examples: list[Example]
) -> None:
    asked = Question(resident, TASK, "score", batch_size=batch_size, model_version=None, likelihoods=None)
    assert isinstance(asked._way, Likely)
    asked._begun_ahead = begun_ahead
    batches = [
        asked.prepare([asked.read(one) for one in examples[at : at + batch_size]])
        for at in range(0, len(examples), batch_size)
    ]
    found = by_id(asked.finish_in_turn(begun for batch in batches for begun in asked.begin(batch)))
    reference = expected(resident, photos).double().log_softmax(-1)
    assert [found[one.id].label for one in examples] == [TASK.classes[place] for place in reference.argmax(-1)]
    for example, row in zip(examples, reference, strict=True):
        assert list(found[example.id].scores.values()) == pytest.approx(row.tolist(), abs=2e-4)


def test_few_answers_are_scored_in_one_pass(resident: Resident) -> None:
    few = Task(prompt="?", classes=("a", "b", "crack"))
    asked = Question(resident, few, "score", batch_size=1, model_version=None, likelihoods=None)
    assert isinstance(asked._way, OnePass)


@pytest.mark.parametrize("mode, likelihoods", [("score_per_token", None), ("score", {})])
def test_where_every_score_counts_all_are_exact(mode: str, likelihoods: object, resident: Resident) -> None:
    asked = Question(resident, TASK, mode, batch_size=1, model_version=None, likelihoods=likelihoods)
    assert isinstance(asked._way, OnePass)


@pytest.mark.parametrize("groups", [(8, 32), (50, 70)])
def test_what_is_followed_up_is_exact_and_the_rest_is_bounded(
    groups: tuple[int, int],
    resident: Resident,
    photos: list[bytes],
    passes: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Random weights find no answer probable, so that much is left over.
    monkeypatch.setattr(beginnings, "TOLERANCE", 1e30)
    monkeypatch.setattr(likely, "_GROUPS", groups)
    way, chosen = likely_of(resident), list[np.ndarray]()
    monkeypatch.setattr(Beginnings, "choose", _every_other(chosen))
    with inference(resident.model):
        found = finished(way, photos)
    reference = expected(resident, photos)
    followed = torch.from_numpy(chosen[0][:, way._tree._begins])
    assert 0 < followed.sum() < followed.numel()
    assert torch.allclose(found[followed], reference[followed], atol=1e-4, rtol=0)
    assert (found[~followed] >= reference[~followed] - 1e-4).all()
    assert (found[~followed] - reference[~followed]).max() > 1
    assert len(passes) == sum(any(low < n <= high for n in _nodes(way, chosen[0])) for low, high in _ranges(groups))


def _every_other(chosen: list[np.ndarray]) -> Callable[[object, np.ndarray], np.ndarray]:
    """Return a choice of other beginnings for every photo."""

    def choose(tree: object, firsts: np.ndarray) -> np.ndarray:
        rows, columns = np.indices(firsts.shape)
        chosen.append(columns % (rows % 3 + 1) == 0)
        return chosen[-1]

    return choose


def _nodes(way: Likely, chosen: np.ndarray) -> list[int]:
    return [int(one) for one in chosen @ way._tree.sizes]


def _ranges(groups: tuple[int, int]) -> list[tuple[int, int]]:
    return [(0, groups[0]), (groups[0], groups[1]), (groups[1], 1000)]


def test_a_promise_that_is_not_kept_is_followed_by_all_answers(
    resident: Resident, photos: list[bytes], passes: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    way = likely_of(resident)
    monkeypatch.setattr(Beginnings, "choose", _every_other([]))
    with inference(resident.model):
        found = finished(way, photos)
    assert torch.allclose(found, expected(resident, photos), atol=1e-4, rtol=0)
    # Of two photos all were from the start.
    assert passes[-1] == (len(photos) - 2, len(way._tree.tokens) - 1)


def test_memory_that_runs_out_in_the_second_pass_halves_the_batch(
    resident: Resident, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = by_id(answers(resident, examples, TASK))
    tried, states = [], OnePass.states

    def limited(way: OnePass, packed: Packed, pixels: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        if packed.behind is not None:
            tried.append(packed.runs[0][0])
            if tried[-1] > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return states(way, packed, pixels)

    monkeypatch.setattr(OnePass, "states", limited)
    found = by_id(answers(resident, examples, TASK, batch_size=6))
    assert {key: one.label for key, one in found.items()} == {key: one.label for key, one in wanted.items()}
    assert max(tried) == len(examples) - 1
    monkeypatch.setattr(OnePass, "states", _never_behind(states))
    with pytest.raises(ModelError, match=r"alone; lower Task\.max_pixels"):
        list(answers(resident, examples, TASK, batch_size=2))


def _never_behind(states: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def limited(way: OnePass, packed: Packed, pixels: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        if packed.behind is not None:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(way, packed, pixels)

    return limited


def test_what_memory_did_not_suffice_for_is_no_answer(
    resident: Resident, examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Question(resident, TASK, "score", batch_size=1, model_version=None, likelihoods=None)
    asked._begun_ahead = 2
    wanted = by_id(answers(resident, examples, TASK))
    seconds, states = [], OnePass.states

    def third_fails(way: OnePass, packed: Packed, pixels: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        if packed.behind is not None:
            seconds.append(packed)
            if len(seconds) == 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return states(way, packed, pixels)

    monkeypatch.setattr(OnePass, "states", third_fails)
    # Every photo goes through the model twice, and no more.
    monkeypatch.setattr(Beginnings, "choose", lambda tree, firsts: np.ones(firsts.shape, dtype=bool))
    begun = (one for example in examples for one in asked.begin(asked.prepare([asked.read(example)])))
    found: list[Prediction] = []
    with inference(resident.model), pytest.raises(ModelError, match=r"for 2\.png alone"):
        found.extend(asked.finish_in_turn(begun))
    assert [one.example_id for one in found] == ["0.png", "1.png"]
    assert all(one.label == wanted[one.example_id].label for one in found)


ANSWERS = [(1, 9), (1, 2, 9), (2, 3, 9), (2, 4, 9), (3, 9), (4,), (5, 1, 1, 9), (5, 1, 2, 9)]
TREE = Beginnings(AnswerTree.of(ANSWERS), [1, 2, 3, 4, 5])


def test_a_tree_knows_what_each_beginning_leads_to() -> None:
    assert TREE.sizes.tolist() == [2, 3, 1, 0, 4]
    nodes = TREE.nodes(np.array([[True, False, True, True, False], [False, False, False, False, True]]))
    assert TREE.tokens[nodes].tolist() == [[1, 2, 3, 0], [5, 1, 1, 2]]
    assert TREE.parents_in(nodes).tolist() == [[-1, 0, -1, -1], [-1, 0, 1, 1]]
    assert TREE.seen(nodes)[1].tolist() == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, False, True],
    ]


@settings(max_examples=60)
@given(arrays(np.float64, (3, 5), elements=st.floats(-30, 0)), st.data())
def test_what_is_left_out_never_has_more_than_the_tolerance(firsts: np.ndarray, data: st.DataObject) -> None:
    """With any continuations of the answers, those that are not followed up are improbable, or it is noticed."""
    rest = data.draw(arrays(np.float64, (3, len(ANSWERS)), elements=st.floats(-12, 0)))
    rest[:, 5] = 0
    exact = firsts[:, [0, 0, 1, 1, 2, 3, 4, 4]] + rest
    chosen = TREE.choose(firsts)
    followed = chosen[:, [0, 0, 1, 1, 2, 3, 4, 4]]
    followed[:, 5] = True
    scores = np.where(followed, exact, exact - rest)
    short = TREE.short(scores, chosen)
    scores[short] = exact[short]
    found, right = (one - np.logaddexp.reduce(one, axis=1, keepdims=True) for one in (scores, exact))
    assert np.abs(found - right)[followed].max(initial=0) <= TOLERANCE
    assert np.exp(np.where(followed | short[:, None], -np.inf, found)).sum(axis=1).max() <= TOLERANCE


def test_scores_that_are_no_numbers_are_all_followed_up() -> None:
    assert TREE.choose(np.full((1, 5), np.nan)).all()


def test_answers_that_all_begin_alike_are_all_followed_up() -> None:
    tree = Beginnings(AnswerTree.of([(1, 2, 9), (1, 3, 9), (1, 4, 9)]), [1])
    assert tree.choose(np.array([[-0.5], [-3.0]])).tolist() == [[True], [True]]
