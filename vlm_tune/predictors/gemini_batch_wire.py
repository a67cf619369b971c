"""What goes into a batch job and what comes out of it: one request a line, answers matched by their key."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.genai.types import BatchJob, Content, GenerateContentConfig, GenerateContentResponse, InlinedRequest

__all__ = ["Item", "Matched", "file_items", "inline_items", "inlined", "matched", "request_line"]

_NOT_SENT = {"automatic_function_calling", "http_options"}
_COUNTS = ("promptTokenCount", "cachedContentTokenCount", "candidatesTokenCount", "thoughtsTokenCount")


@dataclass(frozen=True)
class Item:
    """One item that came back: whose, and either a reply or the reason why there is none."""

    key: str | None
    reply: GenerateContentResponse | None = None
    error: str | None = None


@dataclass(frozen=True)
class Matched:
    """The items of a job, put to the questions they answer.

    Attributes:
        replies: Key to reply, at most one each.
        errors: Key to the reason why there is no reply.
        num_again: Replies to a question that has one already; they are not used.
        num_strange: Items without a key, or with one that was not asked; they are not used.
    """

    replies: dict[str, GenerateContentResponse] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    num_again: int = 0
    num_strange: int = 0

    def num_missing(self, keys: Sequence[str]) -> int:
        """Return how many of the questions have neither a reply nor an error."""
        return len(keys) - len(self.replies) - len(self.errors)


def request_line(key: str, contents: Sequence[Content], config: GenerateContentConfig) -> bytes:
    """Return one line of a job's file."""
    settings = config.model_dump_json(by_alias=True, exclude_none=True, exclude=_NOT_SENT)
    talk = ",".join(content.model_dump_json(by_alias=True, exclude_none=True) for content in contents)
    # This one name is spelled as the service's own guide spells it; the others as its interface does.
    return f'{{"key":{json.dumps(key)},"request":{{"contents":[{talk}],"generation_config":{settings}}}}}\n'.encode()


def inlined(path: Path, config: GenerateContentConfig) -> list[InlinedRequest]:
    """Return the requests of a job's file for a call that carries them itself; the key goes into the metadata."""
    from google.genai import types

    requests = []
    with path.open("rb") as lines:
        for line in lines:
            asked = json.loads(line)
            contents = [types.Content.model_validate(content) for content in asked["request"]["contents"]]
            requests.append(types.InlinedRequest(contents=contents, config=config, metadata={"key": asked["key"]}))
    return requests


def inline_items(job: BatchJob) -> Iterator[Item]:
    """Yield what a job brought back in its own reply."""
    for answer in (job.dest.inlined_responses if job.dest else None) or []:
        key = (answer.metadata or {}).get("key")
        if answer.response is not None:
            yield Item(key, reply=answer.response)
        else:
            yield Item(key, error=_reason(answer.error.model_dump() if answer.error else {}))


def file_items(content: bytes) -> Iterator[Item]:
    """Yield what a job brought back as a file; a line that cannot be read is an item without a key."""
    for line in content.splitlines():
        try:
            item = json.loads(line)
            if "response" in item:
                yield Item(item.get("key"), reply=_reply(item["response"]))
            else:
                yield Item(item.get("key"), error=_reason(item.get("error") or {}))
        except (ValueError, TypeError, AttributeError):
            yield Item(None)


def matched(items: Iterable[Item], keys: Sequence[str]) -> Matched:
    """Put items to the questions they answer, by key alone: neither order nor number can be relied on."""
    asked, found = set(keys), Matched()
    again = strange = 0
    for item in items:
        if item.key not in asked:
            strange += 1
        elif item.key in found.replies:
            again += 1
        elif item.reply is not None:
            found.replies[item.key] = item.reply
            found.errors.pop(item.key, None)
        else:
            found.errors[item.key] = item.error or "no reason given"
    return Matched(found.replies, found.errors, again, strange)


def _reason(error: Mapping[str, Any]) -> str:
    return f"{error.get('code') or 'no code'}: {error.get('message') or 'no message'}"


def _reply(raw: Mapping[str, Any]) -> GenerateContentResponse:
    """Return a reply made of the fields we read: the client's own records refuse fields newer than itself."""
    from google.genai import types

    counts = raw.get("usageMetadata") or {}
    details = [
        {name: detail[name] for name in ("modality", "tokenCount") if name in detail}
        for detail in counts.get("promptTokensDetails") or []
    ]
    feedback = (raw.get("promptFeedback") or {}).get("blockReason")
    return types.GenerateContentResponse.model_validate(
        {
            "candidates": [_candidate(candidate) for candidate in raw.get("candidates") or []],
            "usageMetadata": {
                **{name: counts[name] for name in _COUNTS if name in counts},
                "promptTokensDetails": details,
            },
            "modelVersion": raw.get("modelVersion"),
            "promptFeedback": {"blockReason": feedback} if feedback else None,
        }
    )


def _candidate(raw: Mapping[str, Any]) -> dict[str, Any]:
    parts = (raw.get("content") or {}).get("parts") or []
    texts = [{name: part[name] for name in ("text", "thought") if name in part} for part in parts]
    return {"content": {"role": "model", "parts": texts}, "finishReason": raw.get("finishReason")}
