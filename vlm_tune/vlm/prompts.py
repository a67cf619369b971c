"""The words around the photo: the chat messages, the rendered prompt and the tokens of an answer.

Scoring and training both take their tokens from here, so a model is trained on exactly what it is scored by:
the answer is the label's own tokens, tokenised by itself, and the token that ends the turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlm_tune.errors import ModelError, TaskError
from vlm_tune.task import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

__all__ = ["answer_ids", "end_of_turn_id", "messages", "prompt_text"]

_MARKER = "ANSWER"


def messages(task: Task, *, answer: str | None = None) -> list[dict[str, Any]]:
    """Return the chat messages of one question: the photo, then the task's words.

    Args:
        task: The question.
        answer: Adds the assistant's turn with this text.

    Examples:
        >>> [turn["role"] for turn in messages(Task(prompt="What?", classes=("a", "b")), answer="a")]
        ['user', 'assistant']
    """
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": task.render()}]}
    if answer is None:
        return [user]
    return [user, {"role": "assistant", "content": [{"type": "text", "text": answer}]}]


def prompt_text(processor: ProcessorMixin, task: Task) -> str:
    """Return the prompt as the model reads it, up to where the answer begins; the photo is a placeholder.

    Raises:
        ModelError: The processor has no chat template.
        TaskError: The task's words contain one of the model's special tokens.
    """
    _refuse_special(processor.tokenizer, task.render())
    return _render(processor, messages(task), add_generation_prompt=True)


def answer_ids(processor: ProcessorMixin, label: str) -> list[int]:
    """Return the tokens of an answer: those of the label by itself, then the one that ends the turn.

    Raises:
        ModelError: The processor has no chat template, or its template does not end the turn.
        TaskError: The label contains one of the model's special tokens.
    """
    _refuse_special(processor.tokenizer, label)
    return [*_tokens(processor.tokenizer, label), end_of_turn_id(processor)]


def end_of_turn_id(processor: ProcessorMixin) -> int:
    """Return the token that the chat template puts at the end of an assistant's turn.

    Raises:
        ModelError: The processor has no chat template, or its template does not end the turn.
    """
    tokenizer = processor.tokenizer
    asked = Task(prompt="?", classes=("yes", "no"))
    rendered = _render(processor, messages(asked, answer=_MARKER), add_generation_prompt=False)
    special = _special(tokenizer)
    after_answer = _tokens(tokenizer, rendered.rpartition(_MARKER)[2])
    end = next((token for token in after_answer if token in special), tokenizer.eos_token_id)
    if end is None:
        raise ModelError("the chat template does not end the assistant's turn with a special token")
    return int(end)


def _render(processor: ProcessorMixin, turns: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
    if getattr(processor, "chat_template", None) is None:
        raise ModelError(
            "the model's processor has no chat template, so it cannot be asked a question; use the "
            "instruction-tuned version of the model, or copy its chat_template.jinja into the folder"
        )
    return str(processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt))


def _tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def _refuse_special(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    # A tokenizer turns "<|im_end|>" inside a class name into the token that ends the turn.
    for token in _special(tokenizer).values():
        if token in text:
            raise TaskError(f"{text!r} contains {token!r}, which the model reads as a command; reword it")
