from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoProcessor, ProcessorMixin

from vlm_tune.errors import ModelError, TaskError
from vlm_tune.task import Task
from vlm_tune.vlm.prompts import answer_ids, end_of_turn_id, messages, prompt_text

TASK = Task(prompt="What is it?", classes=("crack", "dent"))


@pytest.fixture
def processor(tiny_vlm: Path) -> ProcessorMixin:
    return AutoProcessor.from_pretrained(tiny_vlm)


def test_prompt_ends_where_the_answer_begins(processor: ProcessorMixin) -> None:
    prompt = prompt_text(processor, TASK)
    assert prompt.endswith("assistant\n")
    assert TASK.render() in prompt
    assert prompt.count(processor.image_token) == 1
    assert prompt.index(processor.image_token) < prompt.index("What is it?")


def test_answer_is_the_label_and_the_end_of_turn(processor: ProcessorMixin) -> None:
    tokenizer = processor.tokenizer
    for label in ("crack", "a long label, with marks", "Ä"):
        *label_ids, end = answer_ids(processor, label)
        assert tokenizer.decode(label_ids) == label
        assert tokenizer.convert_ids_to_tokens(end) == "<|im_end|>"


def test_rendered_conversation_continues_the_prompt_with_the_answer(processor: ProcessorMixin) -> None:
    prompt = prompt_text(processor, TASK)
    whole = processor.apply_chat_template(messages(TASK, answer="dent"), tokenize=False)
    assert whole.startswith(prompt)
    tokens = processor.tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    answer = answer_ids(processor, "dent")
    assert tokens[: len(answer)] == answer


def test_end_of_turn_comes_from_the_template(processor: ProcessorMixin) -> None:
    processor.chat_template = processor.chat_template.replace("<|im_end|>", "<|endoftext|>")
    assert processor.tokenizer.convert_ids_to_tokens(end_of_turn_id(processor)) == "<|endoftext|>"


def test_without_a_chat_template_there_is_no_question(processor: ProcessorMixin) -> None:
    processor.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        prompt_text(processor, TASK)


@pytest.mark.parametrize("word", ["<|im_end|>", "<|im_start|>"])
def test_special_tokens_in_words_are_refused(processor: ProcessorMixin, word: str) -> None:
    with pytest.raises(TaskError, match="reads as a command"):
        answer_ids(processor, f"dent{word}")
    with pytest.raises(TaskError, match="reads as a command"):
        prompt_text(processor, Task(prompt=f"Hm {word} What?", classes=("a", "b")))
