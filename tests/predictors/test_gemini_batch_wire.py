"""What goes into a job, and matching what comes out: nothing but the key counts."""

from __future__ import annotations

import json
import random
from pathlib import Path

from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune import images
from vlm_tune.predictors import GeminiOptions
from vlm_tune.predictors.gemini_batch_wire import Item, file_items, inline_items, inlined, matched, request_line
from vlm_tune.predictors.gemini_wire import generation_config, outcome_of, request_contents, usage_of
from vlm_tune.task import Task
from vlm_tune.testing import tiny_dataset

TASK = Task(prompt="What?", classes=("red", "green", "blue"))
CONFIG = generation_config(GeminiOptions(thinking_budget=0, media_resolution="low"), TASK, constrained=True)


def test_a_line_is_what_the_service_documents() -> None:
    photo = images.encode(tiny_dataset(1, split=False)[0].image, max_pixels=TASK.max_pixels)
    line = request_line('a "key"', request_contents(photo, TASK, constrained=True), CONFIG)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    loaded = json.loads(line)
    assert loaded["key"] == 'a "key"'
    [content] = loaded["request"]["contents"]
    assert [*content["parts"][0]["inlineData"]] == ["data", "mimeType"]
    assert loaded["request"]["generation_config"] == {
        "temperature": 0.0,
        "seed": 0,
        "responseMimeType": "text/x.enum",
        "responseSchema": {"type": "STRING", "enum": ["red", "green", "blue"]},
        "mediaResolution": "MEDIA_RESOLUTION_LOW",
        "thinkingConfig": {"thinkingBudget": 0},
    }


def test_inline_requests_are_the_same_photos(tmp_path: Path) -> None:
    photos = [images.encode(e.image, max_pixels=TASK.max_pixels) for e in tiny_dataset(1, split=False)]
    asked = [request_contents(photo, TASK, constrained=True) for photo in photos]
    path = tmp_path / "requests"
    path.write_bytes(b"".join(request_line(str(n), contents, CONFIG) for n, contents in enumerate(asked)))
    requests = inlined(path, CONFIG)
    assert [request.contents for request in requests] == asked
    assert [request.metadata for request in requests] == [{"key": "0"}, {"key": "1"}, {"key": "2"}]


def reply(text: str) -> dict[str, object]:
    return {
        "candidates": [
            {
                "content": {"parts": [{"text": text, "thoughtSignature": "x"}], "role": "model"},
                "finishReason": "STOP",
                "new": 1,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 300,
            "candidatesTokenCount": 2,
            "thoughtsTokenCount": 7,
            "cachedContentTokenCount": 5,
            "serviceTier": "batch",
            "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 258, "new": True}],
        },
        "modelVersion": "m-1",
        "newer": {"than": "the client"},
    }


def test_a_file_may_say_more_than_the_client_knows() -> None:
    lines = [{"key": "a", "response": reply("red")}, {"key": "b", "error": {"code": 8, "message": "No quota."}}]
    first, second = file_items("".join(json.dumps(line) + "\n" for line in lines).encode())
    assert first.reply is not None
    assert outcome_of(first.reply, TASK) == ("answered", "red", "red", None)
    usage = usage_of(first.reply)
    assert (usage.input_tokens, usage.image_tokens, usage.cached_tokens) == (300, 258, 5)
    assert (usage.output_tokens, usage.thinking_tokens, first.reply.model_version) == (2, 7, "m-1")
    assert (second.key, second.reply, second.error) == ("b", None, "8: No quota.")


def test_refusals_come_through_a_file() -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 1}}
    empty = {"candidates": [{"finishReason": "SAFETY"}]}
    lines = [{"key": "a", "response": blocked}, {"key": "b", "response": empty}, {"key": "c", "response": {}}]
    items = file_items("".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [outcome_of(item.reply, TASK)[0] for item in items if item.reply] == ["refused", "refused", "unparseable"]


def test_lines_that_cannot_be_read_are_nobodys() -> None:
    torn = b'{"key": "a", "resp\n[]\nnull\n{"key": "b", "response": 3}\n{"key": "c", "response": {"candidates": 1}}\n'
    assert [item.key for item in file_items(torn)] == [None] * 5


def test_a_job_without_results_has_no_items() -> None:
    assert list(inline_items(types.BatchJob())) == []


@given(
    st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 25), st.booleans()), max_size=60),
    st.randoms(use_true_random=False),
)
def test_every_key_gets_at_most_one_answer_and_its_own(
    keys: list[str], came: list[tuple[int, bool]], draw: random.Random
) -> None:
    items = []
    for place, good in came:
        key = keys[place] if place < len(keys) else None if good else "not asked " * 9
        items.append(Item(key, reply=types.GenerateContentResponse(response_id=key)) if good else Item(key, error="no"))
    draw.shuffle(items)
    found = matched(items, keys)
    assert all(answer.response_id == key for key, answer in found.replies.items())
    assert found.replies.keys() == {item.key for item in items if item.reply and item.key in keys}
    assert found.replies.keys().isdisjoint(found.errors)
    assert found.num_missing(keys) == len(set(keys) - {item.key for item in items})
    assert found.num_strange == sum(item.key not in keys for item in items)


def test_a_reply_beats_an_error_and_the_first_reply_counts() -> None:
    first, second = (types.GenerateContentResponse(response_id=name) for name in ("first", "second"))
    items = [Item("a", error="busy"), Item("a", reply=first), Item("a", reply=second), Item("a", error="late")]
    found = matched([*items, Item("b", error="no")], ["a", "b", "c"])
    assert found.replies == {"a": first}
    assert found.errors == {"b": "no"}
    assert (found.num_again, found.num_strange, found.num_missing(["a", "b", "c"])) == (2, 0, 1)
