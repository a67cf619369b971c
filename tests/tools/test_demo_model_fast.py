"""The pretraining's own forward pass and prompts are those that transformers and the processor make."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vlm_tune as vt

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from demo_model.fast import Fast
from demo_model.feed import Encoder

PROMPT = "What is this?\nAnswer with one of: crack, dent, scratch."
ANSWERS = ("crack", "dent", "scratch")


@pytest.mark.parametrize("size", [(128, 128), (112, 144)])
def test_same_tokens_and_logits_as_transformers(size: tuple[int, int]) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = vt.demo.model_path()
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (3, *size, 3), dtype=np.uint8)
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    asked = processor.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    processor.image_processor.do_resize = False
    inputs = processor(
        text=[f"{asked}{answer}<|im_end|>" for answer in ANSWERS],
        images=[Image.fromarray(picture) for picture in pixels],
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    encoder = Encoder(processor.tokenizer.backend_tokenizer)
    rows = [encoder(PROMPT, answer)[0] for answer in ANSWERS]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    assert torch.equal(inputs["input_ids"][:, -longest:], ids)

    fast = Fast(model)
    with torch.no_grad():
        ours = fast.logits(fast.think(torch.tensor(encoder.prefix), fast.see(torch.from_numpy(pixels)), ids))
        theirs = model(**inputs).logits[:, -longest:]
    torch.testing.assert_close(ours[ids != 0], theirs[ids != 0], rtol=1e-4, atol=1e-3)
