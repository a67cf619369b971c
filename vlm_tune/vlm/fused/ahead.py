"""Kernels compiled and libraries opened while a model's weights are read: later nobody waits for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from vlm_tune.vlm.fused import ops
from vlm_tune.vlm.fused.packing import attend

__all__ = ["warm_up"]

_TOKENS = 64
"""Enough for a kernel to be the one that real inputs get."""


def warm_up(config: Any, dtype: torch.dtype, device: torch.device) -> list[threading.Thread]:
    """Run every operation of an architecture once, forward and backward, in threads of their own.

    Compiling takes three seconds on a machine that has not done it before, and opening cuDNN three more.

    Args:
        config: The model's configuration.
        dtype: The type of its weights.
        device: A GPU.
    """
    inputs = _Inputs(dtype, device)
    threads = [
        threading.Thread(target=_on, args=(device, work, config, inputs), name=f"vlm-tune{work.__name__}", daemon=True)
        for work in (_run_kernels, _run_attention)
    ]
    for thread in threads:
        thread.start()
    return threads


class _Inputs:
    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device

    def __call__(self, *shape: int) -> torch.Tensor:
        return torch.ones(*shape, dtype=self._dtype, device=self._device, requires_grad=True)

    def fixed(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        return torch.ones(*shape, dtype=dtype or self._dtype, device=self._device)


def _on(device: torch.device, work: Callable[[Any, _Inputs], None], config: Any, inputs: _Inputs) -> None:
    # A thread starts on the first GPU, whichever the others are on.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        work(config, inputs)


def _run_kernels(config: Any, inputs: _Inputs) -> None:
    text, vision = config.get_text_config(), config.vision_config
    size, (counts, width) = text.hidden_size, _text_heads(text)
    _backward(ops.rms_norm(inputs(_TOKENS, size), inputs.fixed(size), 1e-6))
    _backward(*ops.add_rms_norm(inputs(_TOKENS, size), inputs(_TOKENS, size), inputs.fixed(size), 1e-6))
    _backward(ops.swiglu(inputs(_TOKENS, 2 * text.intermediate_size) * 1))
    angles, weight = inputs.fixed(_TOKENS, width), inputs.fixed(width)
    qkv = inputs(_TOKENS, sum(counts) * width)
    _backward(*ops.heads(qkv, angles, angles, counts=counts, weights=(weight, weight), eps=1e-6))
    if "conv" in (getattr(text, "layer_types", None) or ()):
        filters, position = inputs.fixed(size, text.conv_L_cache), inputs.fixed(_TOKENS, dtype=torch.int64)
        _backward(ops.gated_conv(inputs(_TOKENS, 3 * size), filters, position))
    if hasattr(vision, "spatial_merge_size"):
        # Of the towers that are known here, only Qwen's rotates its heads; its angles are float32.
        count, width = _vision_heads(vision)
        angles = inputs.fixed(_TOKENS, width, dtype=torch.float32)
        _backward(*ops.heads(inputs(_TOKENS, 3 * count * width), angles, angles, counts=[count] * 3))


def _run_attention(config: Any, inputs: _Inputs) -> None:
    # Without `fused_on`, whose switches are the whole process's.
    runs = ((1, _TOKENS),)
    (query, key, value), width = _text_heads(config.get_text_config())
    heads = inputs(_TOKENS, query, width), inputs(_TOKENS, key, width), inputs(_TOKENS, value, width)
    _backward(attend(*heads, runs, causal=True))
    query_heads, key_heads, value_heads = (inputs(_TOKENS, *_vision_heads(config.vision_config)) for _ in range(3))
    _backward(attend(query_heads, key_heads, value_heads, runs, causal=False))


def _text_heads(text: Any) -> tuple[tuple[int, int, int], int]:
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return (text.num_attention_heads, text.num_key_value_heads, text.num_key_value_heads), width


def _vision_heads(vision: Any) -> tuple[int, int]:
    count = getattr(vision, "num_heads", None) or vision.num_attention_heads
    return count, vision.hidden_size // count


def _backward(*outputs: torch.Tensor) -> None:
    torch.autograd.backward([output.sum() for output in outputs])
