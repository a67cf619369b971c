from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from vlm_tune.images import decode
from vlm_tune.task import Task
from vlm_tune.vlm.generating import Generator, room_for_answer
from vlm_tune.vlm.pixels import prepare
from vlm_tune.vlm.prompts import end_of_turn_id, prompt_text
from vlm_tune.vlm.scoring import inference

TASK = Task(prompt="What is it?", classes=("crack", "dent"))


def test_writes_the_likeliest_tokens_whatever_the_batch(tiny_vlm: Path, noise_png: Callable[..., bytes]) -> None:
    processor = AutoProcessor.from_pretrained(tiny_vlm)
    model = AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32).eval()
    photos = [noise_png(32, 32, 1), noise_png(96, 64, 2), noise_png(40, 90, 3)]
    prompt = prompt_text(processor, TASK)
    way = Generator(model, processor, prompt, max_new_tokens=6)
    with inference(model):
        together = way.answer(way.prepare([way.read(decode(photo)) for photo in photos]))
        for photo, text in zip(photos, together, strict=True):
            assert way.answer(way.prepare([way.read(decode(photo))])) == [text]
            assert text == _greedy(model, processor, prepare(processor, [photo], [prompt]), steps=6)
    assert len(set(together)) > 1


def _greedy(model: torch.nn.Module, processor: object, inputs: dict[str, torch.Tensor], *, steps: int) -> str:
    written: list[int] = []
    with torch.no_grad():
        for _ in range(steps):
            token = model(**inputs, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)
            if int(token) == end_of_turn_id(processor):
                break
            written.append(int(token))
            for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
                if name in inputs:
                    new = {"input_ids": token, "attention_mask": torch.ones_like(token)}.get(name, token * 0)
                    inputs[name] = torch.cat([inputs[name], new.to(inputs[name].dtype)], dim=1)
    return str(processor.tokenizer.decode(written, skip_special_tokens=True)).strip()


def test_there_is_room_for_the_longest_class() -> None:
    assert room_for_answer([[1, 2], [1, 2, 3, 4, 5]]) > 5
