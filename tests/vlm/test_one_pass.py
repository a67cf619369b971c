"""One pass for all answers: adapters, many answers, and models that it does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText, AutoProcessor, Lfm2VlConfig, PreTrainedModel, ProcessorMixin

from tests.vlm.asking import answered
from vlm_tune.images import decode
from vlm_tune.task import Task
from vlm_tune.vlm import steps
from vlm_tune.vlm.continuing import Continuing
from vlm_tune.vlm.one_pass import OnePass
from vlm_tune.vlm.prompts import prompt_text
from vlm_tune.vlm.scoring import Scorer, answers_of, reference_scores, scorer

TASK = Task(prompt="What is it?", classes=("a", "a b", "a b c", "b", "crack on a dent", "crack"))
Loaded = tuple[PreTrainedModel, ProcessorMixin]


@pytest.fixture
def fresh(tiny_vlm: object, model_and_processor: Loaded) -> Loaded:
    """A model that a test may change."""
    _, processor = model_and_processor
    return AutoModelForImageTextToText.from_pretrained(tiny_vlm, dtype=torch.float32).eval(), processor


def way_of(model: PreTrainedModel, processor: ProcessorMixin) -> Scorer:
    return scorer(model, processor, prompt_text(processor, TASK), answers_of(processor, TASK.classes))


def adapted(model: PreTrainedModel, **settings: object) -> PreTrainedModel:
    config = LoraConfig(r=2, target_modules=["q_proj", "v_proj", "qkv", "fc1"], init_lora_weights=False, **settings)
    return get_peft_model(model, config).eval()


def test_adapters_take_part(fresh: Loaded, photos: list[bytes]) -> None:
    model, processor = fresh
    before = answered(way_of(model, processor), photos[:3])
    wrapped = adapted(model, lora_dropout=0.1)
    way = way_of(wrapped, processor)
    assert isinstance(way, OnePass)
    scores = answered(way, photos[:3])
    assert torch.allclose(scores, reference_scores(wrapped, processor, photos[:3], TASK), atol=1e-4, rtol=0)
    assert (scores - before).abs().max() > 0.01
    with wrapped.disable_adapter():
        assert torch.allclose(answered(way_of(wrapped, processor), photos[:3]), before, atol=1e-5)


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"modules_to_save": ["q_norm", "q_layernorm"]}], ids=["DoRA", "in full"]
)
def test_other_kinds_of_adapters_take_the_stock_way(
    settings: dict[str, object], fresh: Loaded, photos: list[bytes]
) -> None:
    model, processor = fresh
    wrapped = adapted(model, **settings)
    way = way_of(wrapped, processor)
    assert isinstance(way, Continuing)
    expected = reference_scores(wrapped, processor, photos[:2], TASK)
    assert torch.allclose(answered(way, photos[:2]), expected, atol=1e-4, rtol=0)


def test_a_model_that_it_does_not_fit_is_noticed_once(
    fresh: Loaded, photos: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = fresh
    # Something the forward pass does not know of.
    model.get_input_embeddings().register_forward_hook(lambda module, args, out: out * 1.5 if out.ndim == 3 else out)
    expected = reference_scores(model, processor, photos[:2], TASK)
    for kind in (OnePass, Continuing):
        way = way_of(model, processor)
        assert isinstance(way, kind)
        assert torch.allclose(answered(way, photos[:2]), expected, atol=1e-4, rtol=0)
    assert capsys.readouterr().err.count("differs from the stock one") == 1


def test_logits_are_made_a_part_at_a_time(
    model_and_processor: Loaded, photos: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = model_and_processor
    at_once = answered(way_of(model, processor), photos)
    for rows in (1, 5, 7):
        monkeypatch.setattr(steps, "_LOGITS_AT_ONCE", rows * model.config.get_text_config().vocab_size)
        assert torch.allclose(answered(way_of(model, processor), photos), at_once, atol=1e-5)


def test_layers_are_stacked_once_for_all(model_and_processor: Loaded) -> None:
    model, processor = model_and_processor
    way_of(model, processor)
    where = [parameter.data_ptr() for parameter in model.parameters()]
    way_of(model, processor)
    assert [parameter.data_ptr() for parameter in model.parameters()] == where


def test_convolutions_behind_the_last_attention_follow_the_tree(tiny_lfm2_vl: Path, photos: list[bytes]) -> None:
    processor = AutoProcessor.from_pretrained(tiny_lfm2_vl)
    config = Lfm2VlConfig.from_pretrained(tiny_lfm2_vl)
    text = config.text_config
    text.layer_types = ["conv", "full_attention", "conv", "full_attention", "conv", "conv"]
    text.num_hidden_layers, text.conv_L_cache, text.conv_bias = 6, 4, True
    torch.manual_seed(3)
    model = AutoModelForImageTextToText.from_config(config).float().eval()
    for parameter in model.requires_grad_(False).parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    way = way_of(model, processor)
    assert isinstance(way, OnePass)
    expected = reference_scores(model, processor, photos[:3], TASK)
    assert torch.allclose(answered(way, photos[:3]), expected, atol=1e-4, rtol=0)
    assert expected.std(1).min() > 0.1


def test_photos_are_the_pixels_that_training_saw(
    model_and_processor: Loaded, photos: list[bytes], noise_png: Callable[..., bytes]
) -> None:
    from vlm_tune.vlm.pixels import prepare

    model, processor = model_and_processor
    way = way_of(model, processor)
    assert isinstance(way, OnePass)
    prepared = way.prepare([way.read(decode(photo)) for photo in photos])
    prompts = [prompt_text(processor, TASK)] * len(photos)
    stock = prepare(processor, [photos[place] for place in prepared.order], prompts)
    for name, value in prepared.pixels.items():
        assert torch.equal(value, stock[name])
