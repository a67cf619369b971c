from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, LabelAuditError
from vlm_tune.families import FAMILIES
from vlm_tune.training.batches import IGNORED, Batches
from vlm_tune.training.checks import GradientLiveness, audit_tokens


class Spoilt(Batches):
    """Batches with a mistake that collators are known to make."""

    mistake = ""

    def stack(self, encoded: Sequence) -> dict:
        batch = super().stack(encoded)
        last = len(encoded[0].tokens["input_ids"]) - 1
        if self.mistake == "prompt":
            batch["labels"][0, last - encoded[0].num_trained] = batch["input_ids"][0, last - encoded[0].num_trained]
        elif self.mistake == "no end":
            batch["labels"][0, last] = IGNORED
        elif self.mistake == "all masked":
            batch["labels"][0] = IGNORED
        elif self.mistake == "other token":
            batch["input_ids"][0, last] = 9
        elif self.mistake == "newline behind":
            newline = self.processor.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
            for name, value in (("input_ids", newline), ("labels", newline), ("attention_mask", 1)):
                batch[name] = torch.nn.functional.pad(batch[name], (0, 1), value=value)
        elif self.mistake == "image token lost":
            image = self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)
            at = (batch["input_ids"][0] == image).nonzero()[0]
            batch["input_ids"][0, at] = 9
        return batch


def audited(folder: Path, data: Dataset, mistake: str = ""):
    batches = Spoilt(
        data.examples, processor=AutoProcessor.from_pretrained(folder), task=data.task, dtype=torch.float32
    )
    batches.mistake = mistake
    return audit_tokens(batches, AutoConfig.from_pretrained(folder), batch_size=2)


def test_audit_decodes_every_class(tiny_vlm: Path, colours: Dataset) -> None:
    audit = audited(tiny_vlm, colours)
    assert audit.trained_text == {label: f"{label}<|im_end|>" for label in colours.task.classes}
    assert audit.examples >= 3
    assert 0 < audit.trained_fraction < 0.5
    assert audit.image_tokens > 0


@pytest.mark.parametrize(
    "mistake", ["prompt", "no end", "all masked", "other token", "newline behind", "image token lost"]
)
def test_audit_finds_what_collators_get_wrong(tiny_vlm: Path, colours: Dataset, mistake: str) -> None:
    with pytest.raises(LabelAuditError):
        audited(tiny_vlm, colours, mistake)


def parameters(**gradients: float | None):
    for name, gradient in gradients.items():
        place = {"q": "language_model.layers.0.self_attn.q_proj", "qkv": "visual.blocks.0.attn.qkv"}[name]
        parameter = torch.nn.Parameter(torch.zeros(2, 2))
        parameter.grad = None if gradient is None else torch.full((2, 2), gradient)
        yield f"base_model.model.model.{place}.lora_B.default.weight", parameter


def test_every_adapter_has_a_few_steps_to_come_alive() -> None:
    liveness = GradientLiveness(FAMILIES["qwen3_vl"], steps=3)
    liveness.check(parameters(q=1.0, qkv=0.0))
    liveness.check(parameters(q=0.0, qkv=0.5))
    liveness.check(parameters(q=0.0, qkv=0.0))
    liveness.check(parameters(q=None, qkv=None))


@pytest.mark.parametrize("gradient", [0.0, None])
def test_the_dead_are_counted_by_region(gradient: float | None) -> None:
    liveness = GradientLiveness(FAMILIES["qwen3_vl"], steps=2)
    liveness.check(parameters(q=1.0, qkv=gradient))
    with pytest.raises(AdapterError, match=r"vision attention 1 of 1; first model\.visual\.blocks\.0\.attn\.qkv"):
        liveness.check(parameters(q=1.0, qkv=gradient))


def test_a_short_training_is_judged_at_its_end() -> None:
    with pytest.raises(AdapterError, match="vision attention"):
        GradientLiveness(FAMILIES["qwen3_vl"]).check(parameters(q=1.0, qkv=0.0), last=True)


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_gradients_must_be_finite(gradient: float) -> None:
    with pytest.raises(AdapterError, match="language attention 1 of 1"):
        GradientLiveness(FAMILIES["qwen3_vl"]).check(parameters(q=gradient, qkv=1.0))
