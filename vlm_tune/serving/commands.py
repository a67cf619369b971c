"""The command line of each server.

The options are those of vLLM 0.33.0 and SGLang 0.5.23, whose own parsers take these commands; the guide
`docs/guides/serve.md` says what each is for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune.serving.records import ServerCommand

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["Served", "server_commands"]


@dataclass(frozen=True)
class Served:
    """What the servers are told about a model."""

    model: Path
    """Its folder."""
    name: str
    """What requests call it."""
    dtype: str
    """Type of its weights; `auto` would turn float32 into float16."""
    settings: Mapping[str, JsonValue]
    """What the image processor is told."""
    context: int | None
    """Longest prompt and answer together, in tokens; None leaves it to the model's configuration."""
    template: bool
    """Whether its chat template is a file of its own."""
    video: bool
    """Whether it also takes videos, which the server would keep memory for."""
    own_end: bool
    """Whether the tokenizer's end token is the one that ends an answer; otherwise only the folder's generation
    settings know it."""


def server_commands(served: Served) -> tuple[ServerCommand, ...]:
    """Return how to start vLLM and SGLang with the same pixels, words and type as in training."""
    return (_vllm(served), _sglang(served))


def _vllm(served: Served) -> ServerCommand:
    options = {
        "--served-model-name": served.name,
        "--dtype": served.dtype,
        "--chat-template": _template(served),
        "--chat-template-content-format": "openai",
        "--generation-config": "vllm" if served.own_end else None,
        "--limit-mm-per-prompt": json.dumps({"image": 1} | ({"video": 0} if served.video else {})),
        "--mm-processor-kwargs": json.dumps(served.settings) if served.settings else None,
        "--max-model-len": None if served.context is None else str(served.context),
        "--host": "127.0.0.1",
        "--port": "8000",
    }
    argv = ("vllm", "serve", str(served.model), *_words(options))
    return ServerCommand(engine="vllm", argv=argv, url="http://127.0.0.1:8000/v1", model=served.name)


def _sglang(served: Served) -> ServerCommand:
    options = {
        "--model-path": str(served.model),
        "--served-model-name": served.name,
        "--dtype": served.dtype,
        "--chat-template": _template(served),
        "--sampling-defaults": "openai",
        "--limit-mm-data-per-request": json.dumps({"image": 1}),
        "--mm-process-config": json.dumps({"image": served.settings}) if served.settings else None,
        "--context-length": None if served.context is None else str(served.context),
        "--host": "127.0.0.1",
        "--port": "30000",
    }
    argv = ("python", "-m", "sglang.launch_server", *_words(options))
    return ServerCommand(engine="sglang", argv=argv, url="http://127.0.0.1:30000/v1", model=served.name)


def _template(served: Served) -> str | None:
    return str(served.model / "chat_template.jinja") if served.template else None


def _words(options: Mapping[str, str | None]) -> list[str]:
    return [word for option, value in options.items() if value is not None for word in (option, value)]
