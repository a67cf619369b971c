"""A server that any user of transformers could write: `from_pretrained`, `generate`, OpenAI's chat wire format.

It takes the options of `vllm serve` that `serving_check` gives, so that its commands can be run without vLLM, and runs
in a process of its own in which nothing of vlm_tune is imported. `GET /imported` says whether something was.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig

torch.set_num_threads(1)


class Model:
    """The model, and how it writes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name = options.served_model_name
        self.settings = json.loads(options.mm_processor_kwargs)
        self.limits = json.loads(options.limit_mm_per_prompt)
        self.room = options.max_model_len
        self.processor = AutoProcessor.from_pretrained(options.folder)
        self.template = Path(options.chat_template).read_text(encoding="utf-8")
        dtype = getattr(torch, options.dtype)
        self.model = AutoModelForImageTextToText.from_pretrained(options.folder, dtype=dtype).eval()
        self.lock = threading.Lock()
        end = self.processor.tokenizer.eos_token_id
        known = {"eos_token_id": end, "pad_token_id": end}
        self.own = {} if options.generation_config == "vllm" else self.model.generation_config.to_diff_dict()
        self.own = {**known, **self.own}

    def write(self, request: dict[str, Any]) -> tuple[str, str, dict[str, int]]:
        """Return the answer, why it ended, and the tokens."""
        messages, images = _read(request["messages"])
        if len(images) > self.limits.get("image", 999):
            raise ValueError(f"at most {self.limits['image']} images may be provided in one prompt")
        prompt = self.processor.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=True, tokenize=False
        )
        inputs = self.processor(
            text=[prompt], images=[images] if images else None, return_tensors="pt", **self.settings
        ).to(self.model.dtype)
        length = inputs["input_ids"].shape[1]
        most = min(request.get("max_completion_tokens") or 64, (self.room or 10**9) - length)
        settings = GenerationConfig(**{**self.own, "do_sample": False, "max_new_tokens": most})
        with self.lock, torch.inference_mode():
            written = self.model.generate(
                **inputs, generation_config=settings, prefix_allowed_tokens_fn=self._allowed(request, length)
            )
        new = written[0, length:].tolist()
        finish = "stop" if new[-1] == self.own["eos_token_id"] else "length"
        text = self.processor.tokenizer.decode(new, skip_special_tokens=True)
        return text, finish, {"prompt_tokens": length, "completion_tokens": len(new), "total_tokens": length + len(new)}

    def _allowed(self, request: dict[str, Any], length: int) -> Any:
        choices = request.get("structured_outputs", {}).get("choice")
        if not choices:
            return None
        end = self.processor.tokenizer.eos_token_id
        answers = [[*self.processor.tokenizer(one, add_special_tokens=False)["input_ids"], end] for one in choices]

        def allowed(_: int, so_far: torch.Tensor) -> list[int]:
            begun = so_far[length:].tolist()
            return [one[len(begun)] for one in answers if one[: len(begun)] == begun and len(one) > len(begun)] or [end]

        return allowed


def _read(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Image.Image]]:
    """Return the messages as a chat template takes them, and the photos in them."""
    images, turns = [], []
    for message in messages:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turn = []
        for part in parts:
            if part["type"] == "image_url":
                data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                images.append(Image.open(io.BytesIO(data)).convert("RGB"))
                turn.append({"type": "image"})
            else:
                turn.append(part)
        turns.append({"role": message["role"], "content": turn})
    return turns, images


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    model: Model

    def do_GET(self) -> None:
        if self.path == "/imported":
            return self._reply(200, sorted(name for name in sys.modules if name.split(".")[0] == "vlm_tune"))
        known = {"/health": {}, "/v1/models": {"data": [{"id": self.model.name, "object": "model"}]}}
        return self._reply(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["model"] != self.model.name:
            return self._reply(404, {"error": {"message": f"The model {request['model']} does not exist."}})
        try:
            text, finish, usage = self.model.write(request)
        except ValueError as error:
            return self._reply(400, {"error": {"message": str(error)}})
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        whole = {"id": "1", "object": "chat.completion", "created": 0, "model": self.model.name}
        return self._reply(200, {**whole, "choices": [choice], "usage": usage})

    def _reply(self, status: int, body: Any) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("folder")
    for name in ("--served-model-name", "--dtype", "--chat-template", "--chat-template-content-format"):
        parser.add_argument(name, required=True)
    parser.add_argument("--generation-config", default="auto")
    parser.add_argument("--limit-mm-per-prompt", default="{}")
    parser.add_argument("--mm-processor-kwargs", default="{}")
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    Handler.model = Model(options)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
