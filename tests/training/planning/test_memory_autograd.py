"""What the memory model says that one more layer keeps is what autograd keeps, counted at tiny size."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Lfm2VlForConditionalGeneration, PreTrainedModel, Qwen3VLForConditionalGeneration

from tests import models
from tests.training.planning.dimensions import CIFAR
from vlm_tune.families import family_in
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.memory import Layout, peak
from vlm_tune.training.planning.sizes import sizes_of
from vlm_tune.vlm.fused import fused
from vlm_tune.vlm.fused.packing import Packed
from vlm_tune.vlm.fused.recompute import Recompute

LENGTH, RANK, WIDTH, HIDDEN = 256, 8, 64, 192
EVERY = r".*language_model\.layers\.\d+\..*(?:_proj|w[123])"
ATTENTION = r".*language_model\.layers\.\d+\.self_attn\.(?:[qkvo]|out)_proj"

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def qwen(num_layers: int) -> PreTrainedModel:
    config = models.qwen3_vl_config(num_layers=num_layers)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = WIDTH, HIDDEN, 8, 2
    config.vision_config.out_hidden_size = WIDTH
    return Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)


def lfm(*layer_types: str) -> PreTrainedModel:
    config = models.lfm2_vl_config()
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_attention_heads, text.num_key_value_heads = WIDTH, HIDDEN, 4, 2
    text.layer_types, text.num_hidden_layers = list(layer_types), len(layer_types)
    return Lfm2VlForConditionalGeneration(config).to(torch.bfloat16)


FULL = "full_attention"
PAIRS: dict[str, tuple[PreTrainedModel, PreTrainedModel, tuple[Any, ...]]] = {
    "qwen, attention": (lambda: qwen(3), lambda: qwen(4), ("attention",)),
    "qwen, all": (lambda: qwen(3), lambda: qwen(4), ("attention", "mlp")),
    "lfm, one more attention": (lambda: lfm(FULL, FULL), lambda: lfm(FULL, FULL, FULL), ("attention",)),
    "lfm, one more convolution": (lambda: lfm(FULL, FULL), lambda: lfm(FULL, "conv", FULL), ("attention",)),
    "lfm, all": (
        lambda: lfm(FULL, "conv", FULL),
        lambda: lfm(FULL, "conv", "conv", FULL),
        ("attention", "mlp", "conv"),
    ),
}
"""A model, the same with one more layer, and the kinds that are adapted."""


def adapted(model: PreTrainedModel, kinds: tuple[str, ...]) -> PeftModel:
    pattern = EVERY if len(kinds) > 1 else ATTENTION
    return get_peft_model(model, LoraConfig(r=RANK, lora_alpha=4, target_modules=pattern)).train()


def predicted(make: Callable[[], PreTrainedModel], kinds: tuple[Any, ...], *, fast: bool) -> float:
    """Bytes kept for two sequences, adapters' copies in half precision included."""
    model = make()
    pattern = EVERY if len(kinds) > 1 else ATTENTION
    layers = [layer for name, layer in model.named_modules() if re.fullmatch(pattern, name)]
    trained = RANK * sum(sum(layer.weight.shape) for layer in layers)
    config = TrainConfig(r=RANK, regions=("language",), kinds=kinds, fast=fast)
    lengths = replace(CIFAR, tokens=LENGTH, image_tokens=0, answer_tokens=0)
    sizes = sizes_of(model, family_in(model), config, lengths=lengths, trained=trained)
    assert sizes.fused is fast
    return peak(sizes, Layout(2)).activations + 2 * trained


def kept(wrapped: PeftModel, run: Callable[[], object], *, only: torch.dtype | None = None) -> int:
    """Bytes of all different tensors that autograd keeps while something runs, weights aside."""
    known = {tensor.untyped_storage().data_ptr() for tensor in wrapped.parameters()}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known and only in (None, tensor.dtype):
            found[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


@pytest.mark.parametrize("pair", PAIRS)
def test_stock(pair: str) -> None:
    *both, kinds = PAIRS[pair]
    tokens = torch.full((2, LENGTH), 11)
    mask = torch.ones_like(tokens)
    mask[0, -5:] = 0

    def keeps(model: PreTrainedModel) -> int:
        wrapped = adapted(model, kinds)
        with torch.autocast("cpu", torch.bfloat16):
            return kept(wrapped, lambda: wrapped(input_ids=tokens, attention_mask=mask, logits_to_keep=1))

    small, large = (keeps(make()) for make in both)
    before, after = (predicted(make, kinds, fast=False) for make in both)
    assert after - before == pytest.approx(large - small, rel=0.03)


@pytest.mark.parametrize("pair", PAIRS)
def test_fused(pair: str) -> None:
    *both, kinds = PAIRS[pair]

    def keeps(model: PreTrainedModel) -> int:
        wrapped = adapted(model, kinds)
        forward = fused(wrapped.base_model.model, Recompute())
        assert forward is not None
        places = torch.arange(LENGTH).repeat(2)
        packed = Packed(
            tokens=torch.full((2 * LENGTH,), 11),
            positions=places.expand(3, -1) if pair.startswith("qwen") else places,
            image_slots=torch.zeros(0, dtype=torch.long),
            answer_slots=torch.arange(4),
            runs=((2, LENGTH),),
            tail=2,
        )
        nothing = (torch.zeros(0, WIDTH, dtype=torch.bfloat16),)
        return kept(wrapped, lambda: forward.logits(forward.answer_states(packed, nothing)), only=torch.bfloat16)

    small, large = (keeps(make()) for make in both)
    before, after = (predicted(make, kinds, fast=True) for make in both)
    # Norms, gates and convolutions keep float32 copies on a processor; compiled, they keep what they read.
    read = 2 * WIDTH + 2 * HIDDEN
    if pair in ("lfm, one more convolution", "lfm, all"):
        read += 3 * WIDTH
    assert after - before == pytest.approx(large - small + 2 * LENGTH * 2 * read, rel=0.03)
