"""The fused forward pass against `Lfm2VlForConditionalGeneration`, in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoProcessor, Lfm2VlConfig, Lfm2VlForConditionalGeneration, PreTrainedModel, ProcessorMixin

from tests.vlm.fused import helpers

MakeBatch = Callable[..., helpers.Batch]
LANGUAGE = r"model\.language_model\..*self_attn\.(q|k|v|out)_proj"
VISION = r"model\.vision_tower\..*(proj|fc\d)"
EVERYTHING = rf"{LANGUAGE}|{VISION}|.*(in|out)_proj|.*feed_forward\.w\d|.*projector\.linear_\d|.*patch_embedding"
MANY = helpers.CASES["many sizes, tilings and answers"]
CONVS_BEHIND = ("conv", "full_attention", "conv", "full_attention", "conv", "conv", "conv")
"""With four taps, answers see nine tokens behind the last attention layer."""


@pytest.fixture
def model(tiny_lfm2_vl: Path) -> PreTrainedModel:
    return helpers.load(tiny_lfm2_vl)


@pytest.fixture(scope="module")
def processor(tiny_lfm2_vl: Path) -> ProcessorMixin:
    return AutoProcessor.from_pretrained(tiny_lfm2_vl)


@pytest.fixture
def build(tiny_lfm2_vl: Path) -> Callable[..., PreTrainedModel]:
    """Build a model of other layers: (kinds of layers, options) -> model with small random weights."""

    def build(kinds: Sequence[str], *, taps: int = 3, bias: bool = False, norm: bool = True) -> PreTrainedModel:
        config = Lfm2VlConfig.from_pretrained(tiny_lfm2_vl)
        config.projector_use_layernorm = norm
        text = config.text_config
        text.layer_types, text.num_hidden_layers, text.conv_L_cache, text.conv_bias = (
            list(kinds),
            len(kinds),
            taps,
            bias,
        )
        torch.manual_seed(2)
        model = Lfm2VlForConditionalGeneration(config)
        for parameter in model.requires_grad_(False).parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        return model.eval()

    return build


@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_images_say_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    batch = make_batch(model, processor, *case)
    with torch.no_grad():
        stock = model.model.get_image_features(**helpers.pixels_of(batch)).pooler_output
        (features,) = helpers.forward_of(model).see(helpers.pixels_of(batch))
    assert helpers.relative_error(features, torch.cat(stock)) < 1e-5


def test_position_embeddings_are_those_of_each_shape(model: PreTrainedModel) -> None:
    embeddings = model.model.vision_tower.embeddings
    table = embeddings.position_embedding.weight.view(8, 8, -1)
    shapes = torch.tensor([(4, 8), (8, 8), (2, 12), (4, 8), (6, 4)])
    stock = embeddings.resize_positional_embeddings(table, shapes, max_length=64)
    forward = helpers.forward_of(model)
    for shape, theirs in zip(shapes.tolist(), stock, strict=True):
        assert torch.equal(forward._place(tuple(shape)), theirs[: shape[0] * shape[1]])  # type: ignore[attr-defined]


def test_filling_is_never_looked_at(model: PreTrainedModel, processor: ProcessorMixin, make_batch: MakeBatch) -> None:
    batch = make_batch(model, processor, *MANY)
    pixels = helpers.pixels_of(batch)
    other = pixels | {
        "pixel_values": pixels["pixel_values"].masked_fill(pixels["pixel_attention_mask"][..., None] == 0, 7)
    }
    assert not torch.equal(pixels["pixel_values"], other["pixel_values"])
    forward = helpers.forward_of(model)
    with torch.no_grad():
        assert torch.equal(forward.see(pixels)[0], forward.see(other)[0])


@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_answers_are_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    helpers.assert_same_logits(model, make_batch(model, processor, *case))


@pytest.mark.parametrize("targets", [LANGUAGE, VISION, EVERYTHING], ids=["language", "vision", "everything"])
@pytest.mark.parametrize("case", helpers.CASES.values(), ids=helpers.CASES.keys())
def test_gradients_are_the_same(
    case: tuple[list[tuple[int, int]], list[int]],
    targets: str,
    model: PreTrainedModel,
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    adapted = helpers.adapt(model, targets)
    batch = make_batch(model, processor, *case)
    helpers.assert_same_logits(adapted, batch)
    helpers.assert_same_gradients(adapted, batch)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_gradients_are_the_same_when_layers_are_computed_again(
    share: float, model: PreTrainedModel, processor: ProcessorMixin, make_batch: MakeBatch
) -> None:
    batch = make_batch(model, processor, *MANY)
    helpers.assert_same_gradients(helpers.adapt(model, EVERYTHING), batch, share)


@pytest.mark.parametrize(
    ("kinds", "options"),
    [
        (CONVS_BEHIND, {"taps": 4}),
        (("conv", "full_attention"), {}),
        (("full_attention", "conv"), {"taps": 1}),
        (("full_attention", "conv", "conv"), {"bias": True}),
        # Behind this many convolutions an answer sees further than the short sequences reach.
        (("full_attention", *["conv"] * 12), {"taps": 4}),
        (("conv", "full_attention", "conv"), {"norm": False}),
    ],
)
def test_every_arrangement_of_layers(
    kinds: Sequence[str],
    options: dict[str, int],
    build: Callable[..., PreTrainedModel],
    processor: ProcessorMixin,
    make_batch: MakeBatch,
) -> None:
    model = helpers.adapt(build(kinds, **options), EVERYTHING)
    batch = make_batch(model, processor, *MANY)
    helpers.assert_same_logits(model, batch)
    helpers.assert_same_gradients(model, batch)


def test_nothing_but_what_answers_see_is_computed_behind_the_last_attention(
    build: Callable[..., PreTrainedModel], processor: ProcessorMixin, make_batch: MakeBatch
) -> None:
    model = build(CONVS_BEHIND, taps=4)
    batch = make_batch(model, processor, *MANY)
    forward = helpers.forward_of(model)
    with torch.no_grad():
        features = forward.see(helpers.pixels_of(batch))
        with FlopCounterMode(display=False) as counter:
            forward.logits(forward.answer_states(batch.packed, features))
    hidden, inner, key_and_value = 32, 48, 2 * 16
    mlp, conv, tokens = 3 * hidden * inner, 4 * hidden**2, len(batch.packed.tokens)
    seen = len(batch.stock["input_ids"]) * (batch.packed.tail + 3 * 3)
    assert seen < tokens / 2
    attention_in, attention_out = hidden * (hidden + key_and_value), hidden**2
    products = tokens * (2 * (conv + mlp) + attention_in + attention_out + mlp + attention_in)
    products += seen * (attention_out + mlp + 3 * (conv + mlp))
    products += len(batch.targets) * hidden * model.config.text_config.vocab_size
    assert counter.get_flop_counts()["Global"][torch.ops.aten.mm] == 2 * products


def test_layers_before_the_first_adapter_keep_nothing(
    model: PreTrainedModel, processor: ProcessorMixin, make_batch: MakeBatch
) -> None:
    adapted = helpers.adapt(model, LANGUAGE)
    batch = make_batch(adapted, processor, *MANY)
    forward = helpers.forward_of(adapted)
    kept: set[int] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        (features,) = forward.see(helpers.pixels_of(batch))
        assert not features.requires_grad
        assert not kept
        forward.logits(forward.answer_states(batch.packed, (features,)))
    weights = [
        layer.feed_forward.w2.weight.untyped_storage().data_ptr() for layer in adapted.model.language_model.layers
    ]
    assert [weight in kept for weight in weights] == [False, False, True, True]
