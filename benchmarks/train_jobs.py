"""The jobs of `train_speed.py`: drawn photos, the question, the layers to adapt, and the least arithmetic."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vlm_tune as vt

RANK, ALPHA = 64, 16
FORMS: dict[str, tuple[tuple[Any, ...], str]] = {
    "A": (("language",), r".*language_model\.layers\.\d+\.self_attn\.(q|k|v|o|out)_proj"),
    "B": (
        ("vision", "projector", "language"),
        r".*(language_model\.layers\.\d+\.self_attn\.(q|k|v|o)_proj|visual\.blocks\.\d+\.attn\.(qkv|proj)"
        r"|visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc[12])",
    ),
}
"""Regions as vlm-tune takes them, and the pattern that makes PEFT adapt the same layers."""
DAMAGE = vt.Task(
    prompt="This photo shows the surface of one part. Look at the whole surface, at the edges and at the corners. "
    "The photo may be dark or blurry. What kind of damage does this photo show?",
    classes=("crack", "dent", "scratch"),
)
_SYLLABLES = ("bram", "chast", "dun", "fost", "gal", "kel", "plam", "tek", "zuk", "zal")


@dataclass(frozen=True)
class Job:
    """One training job.

    Attributes:
        name: How tables call it.
        form: Which layers are adapted: a key of `FORMS`.
        checkpoint: Folder of the model.
        data: The photos, encoded, in memory.
        num_images: Photos of the whole job, of which `data` may be a part.
        epochs: Passes over them.
    """

    name: str
    form: str
    checkpoint: Path
    data: vt.Dataset
    num_images: int
    epochs: int = 3

    @property
    def samples(self) -> int:
        """Samples of the whole job."""
        return self.num_images * self.epochs

    @property
    def regions(self) -> tuple[Any, ...]:
        """The form for vlm-tune."""
        return FORMS[self.form][0]

    @property
    def targets(self) -> str:
        """The form for PEFT."""
        return FORMS[self.form][1]

    def first(self, count: int) -> Job:
        """Return the job with its first photos only."""
        return replace(self, data=vt.Dataset(self.data.examples[:count], task=self.data.task))

    @cached_property
    def texts(self) -> tuple[str, str]:
        """The rendered prompt, the photo's place included, and what ends an answer: vlm-tune trains on just these."""
        processor = self.processor
        content = [{"type": "image"}, {"type": "text", "text": self.data.task.render()}]
        turns = [{"role": "user", "content": content}]
        return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True), "<|im_end|>"

    @cached_property
    def processor(self) -> Any:
        """The model's processor."""
        from transformers import AutoProcessor

        return AutoProcessor.from_pretrained(self.checkpoint)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Lengths of one sample: `tokens`, and of these `image_tokens` and `answer_tokens`; and `patches`."""
        example, (prompt, end) = self.data.examples[0], self.texts
        image = Image.open(io.BytesIO(example.image))
        inputs = self.processor(images=[image], text=[prompt], return_tensors="pt")
        answer = len(self.processor.tokenizer(example.label + end, add_special_tokens=False)["input_ids"])
        image_token = vt.VLM(self.checkpoint).config.image_token_id
        # LFM2's processor pads every image to the same number of patches; Qwen's has no padding.
        padded = inputs.get("pixel_attention_mask")
        patches = len(inputs["pixel_values"]) if padded is None else padded.sum()
        return {
            "tokens": inputs["input_ids"].shape[1] + answer,
            "image_tokens": int((inputs["input_ids"] == image_token).sum()),
            "answer_tokens": answer,
            "patches": int(patches),
        }

    @cached_property
    def work(self) -> float:
        """Floating-point operations of the whole job, nothing computed twice; see `_work`."""
        return _work(self)


def _work(job: Job) -> float:
    """Count matrix products: 2 operations a weight and row forward, and as many again where a gradient passes.

    Weights are frozen, so the backward pass has no third part. Logits are needed for the answer only; a frozen vision
    tower runs once a photo. Causal attention costs 2 S^2 d a layer, that of the vision tower 4 P^2 d, and 2.5 times as
    much backward. An adapter adds r (in + out) weights, and those have all three parts.
    """
    sizes, total = job.sizes, 0.0
    vision_trained = "vision" in job.regions
    modules = dict(vt.VLM(job.checkpoint).skeleton().named_modules())
    adapted = {name for name in modules if re.fullmatch(job.targets, name)}
    first = min(int(re.search(r"layers\.(\d+)", name)[1]) for name in adapted if "language_model" in name)  # type: ignore[index]
    for name, module in modules.items():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2 or "embed" in type(module).__name__.lower():
            continue
        layer = re.search(r"language_model\.layers\.(\d+)", name)
        in_vision = not layer and "lm_head" not in name
        rows = sizes["tokens"] if layer else sizes["answer_tokens"]
        if in_vision:
            rows = sizes["image_tokens" if "merger" in name or "projector" in name else "patches"]
        forward, attention = 2.0 * weight.numel() * rows, 0.0
        if name.endswith(("q_proj", "qkv")):
            width = weight.shape[0] // (3 if name.endswith("qkv") else 1)
            attention = (4.0 if in_vision else 2.0) * rows**2 * width
        passes_gradient = vision_trained if in_vision else vision_trained or not layer or int(layer[1]) >= first
        times_forward = job.samples if vision_trained or not in_vision else job.num_images
        total += times_forward * (forward + attention)
        total += job.samples * (forward + 2.5 * attention) * passes_gradient
        if name in adapted:
            total += job.samples * 6.0 * RANK * sum(weight.shape[:2]) * rows
    return total


@cache
def headline(checkpoint: Path, *, form: str, tiny: bool) -> Job:
    """Return the experiment's own job: 319 JPEG photos of 1000x750 in three classes, three epochs."""
    drawn = photos(8, 120, 90) if tiny else photos(319, 1000, 750)
    return Job("headline", form, checkpoint, vt.Dataset(drawn, task=DAMAGE), num_images=len(drawn))


@cache
def photos(count: int, width: int, height: int) -> tuple[vt.Example, ...]:
    """Draw JPEG photos of soft spots, labelled in turn."""
    rng, examples = np.random.default_rng(0), []
    for number in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (height // 25, width // 25, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        rough.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        label = DAMAGE.classes[number % len(DAMAGE.classes)]
        examples.append(vt.Example(id=f"{number}.jpg", image=buffer.getvalue(), label=label))
    return tuple(examples)


@cache
def cifar(checkpoint: Path, *, images: int, classes: int, tiny: bool) -> Job:
    """Return a job of CIFAR's size, 50,000 PNG images of 32x32 in three epochs, with only some of the images drawn."""
    rng = np.random.default_rng(0)
    names = tuple(f"{a}{b}" for a in _SYLLABLES for b in _SYLLABLES)[:: max(1, 100 // classes)][:classes]
    task = vt.Task(prompt="What is shown in this image? Answer with the class name only.", classes=names)
    examples = []
    for number in range(images):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(buffer, "PNG")
        examples.append(vt.Example(id=f"{number}.png", image=buffer.getvalue(), label=names[number % classes]))
    data = vt.Dataset(examples, task=task)
    return Job("cifar", "A", checkpoint, data, num_images=16 if tiny else 50_000)
