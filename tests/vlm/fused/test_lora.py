"""Stacked layers against PEFT's own forward pass, and what stacking must leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from tests.vlm.fused import helpers
from tests.vlm.fused.helpers import relative_error
from vlm_tune.vlm.fused.lora import Stacked

NAMES = ("query", "key", "value")
WIDTHS = (12, 4, 6)


class Layers(nn.Module):
    """Three layers that read the same input."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        for name, width in zip(NAMES, WIDTHS, strict=True):
            self.add_module(name, nn.Linear(8, width, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([getattr(self, name)(x) for name in NAMES], dim=1)


def adapted(targets: list[str], *, bias: bool = True, rslora: bool = False) -> Layers:
    """Layers with adapters of different ranks and scales that already say something."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=targets,
        rank_pattern={"key": 2} if "key" in targets else {},
        alpha_pattern={"value": 1} if "value" in targets else {},
        init_lora_weights=False,
        use_rslora=rslora,
    )
    layers: Layers = get_peft_model(Layers(bias=bias), config).base_model.model
    return layers


def stacked(layers: Layers) -> Stacked:
    return Stacked(*(getattr(layers, name) for name in NAMES))


def results(layers: Layers, out: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Return the output and the gradients of the input and of all adapters."""
    layers.zero_grad()
    x.grad = None
    (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum().backward()
    grads = {name: one.grad for name, one in layers.named_parameters() if one.grad is not None}
    assert x.grad is not None
    return {name: one.detach().clone() for name, one in {"out": out, "x": x.grad, **grads}.items()}


@pytest.mark.parametrize("targets", [["query", "key", "value"], ["query", "value"], ["key"]], ids="-".join)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_equals_peft(targets: list[str], bias: bool, rslora: bool) -> None:
    layers = adapted(targets, bias=bias, rslora=rslora)
    x = torch.randn(10, 8, requires_grad=True)
    theirs = results(layers, layers(x), x)
    ours = results(layers, stacked(layers)(x), x)
    assert len(theirs) == 2 + 2 * len(targets)
    assert ours.keys() == theirs.keys()
    for name, one in theirs.items():
        assert relative_error(ours[name], one) < 1e-5, name


def test_new_adapters_are_found_at_every_call() -> None:
    layers = adapted(list(NAMES))
    once = stacked(layers)
    x = torch.randn(10, 8)
    with torch.no_grad():
        for name in NAMES:
            getattr(layers, name).lora_B["default"].weight.mul_(3)
        assert torch.allclose(once(x), layers(x), atol=1e-6)


def test_disabled_adapters_are_left_out() -> None:
    layers = adapted(list(NAMES))
    once, x = stacked(layers), torch.randn(10, 8)
    adapters = [one for one in layers.modules() if isinstance(one, BaseTunerLayer)]
    with torch.no_grad():
        said = once(x)
        for one in adapters:
            one.enable_adapters(False)
        assert not torch.allclose(once(x), said, atol=0.1)
        assert torch.allclose(once(x), layers(x), atol=1e-6)


def test_without_adapters_nothing_is_kept_for_the_backward_pass() -> None:
    layers = Layers()
    x = torch.randn(10, 8)
    out = stacked(layers)(x)
    assert torch.allclose(out, layers(x), atol=1e-6)
    assert not out.requires_grad


def test_an_input_that_needs_no_gradient_costs_none() -> None:
    layers = adapted(["key"])
    x = torch.randn(10, 8)
    stacked(layers)(x).sum().backward()
    assert x.grad is None
    assert layers.key.lora_B["default"].weight.grad.abs().max() > 0


def test_half_precision_base_brings_float32_gradients() -> None:
    layers = adapted(list(NAMES))
    x = torch.randn(10, 8, requires_grad=True)
    exact = results(layers, stacked(layers)(x), x)
    for name in NAMES:
        getattr(layers, name).base_layer.bfloat16()
    out = stacked(layers)(x.bfloat16())
    assert out.dtype == torch.bfloat16
    halved = results(layers, out, x)
    for name, one in exact.items():
        assert halved[name].dtype == (torch.bfloat16 if name == "out" else torch.float32)
        assert relative_error(halved[name].float(), one) < 0.03, name


def test_weights_stay_what_they_were_as_views_of_one_tensor() -> None:
    layers = Layers()
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    once = stacked(layers)
    assert layers.state_dict().keys() == before.keys()
    assert all(torch.equal(layers.state_dict()[name], tensor) for name, tensor in before.items())
    assert len({getattr(layers, name).weight.untyped_storage().data_ptr() for name in NAMES}) == 1
    with torch.no_grad():
        layers.key.weight.zero_()
    x = torch.randn(10, 8)
    assert torch.allclose(once(x), layers(x), atol=1e-6)


def test_a_stacked_model_is_saved_as_ever(tiny_vlm: Path, tmp_path: Path) -> None:
    model = helpers.load(tiny_vlm)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path / "before")
    forward = helpers.forward_of(model)
    model.save_pretrained(tmp_path / "after")
    assert forward is not None
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "after", dtype=torch.float32).state_dict()
    assert again.keys() == before.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("before", "after")]
    assert sizes[0] == sizes[1]


def test_stacking_anew_changes_nothing() -> None:
    layers = adapted(["query", "value"])
    first, second = stacked(layers), stacked(layers)
    x = torch.randn(10, 8)
    with torch.no_grad():
        assert torch.equal(first(x), second(x))
        assert torch.allclose(second(x), layers(x), atol=1e-6)


def test_anything_but_linear_layers_is_refused() -> None:
    with pytest.raises(TypeError, match="Conv1d is no linear layer"):
        Stacked(nn.Linear(4, 4), nn.Conv1d(4, 4, 1))
