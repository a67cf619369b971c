"""Weights in four bits by bitsandbytes: what of a model they replace, and what stays as it is.

NF4 is the format of QLoRA (Dettmers et al. 2023, arXiv 2305.14314): sixteen levels at the quantiles of a normal
distribution, scaled in groups of 64 weights, and the scales quantised again: 4.127 bits a weight. A product turns its
weights back into the model's type first, so this saves memory and costs time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal

from vlm_tune import _imports
from vlm_tune.errors import ModelError

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedModel

__all__ = ["Quantization", "finish", "kept", "settings"]

Quantization = Literal["nf4"]
"""How weights are stored in fewer bits than they are computed with."""


def settings(skeleton: PreTrainedModel, dtype: str) -> BitsAndBytesConfig:
    """Return what transformers takes to quantise a model while it reads it.

    Args:
        skeleton: The model, weights or not.
        dtype: The type of products and of all that is not quantised.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ModelError: The checkpoint is quantised already, or its language model cannot be told from the rest.
    """
    # While it is imported, bitsandbytes asks for a package that none of this needs.
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.disabled = True
    try:
        _imports.require("bitsandbytes", extra="quant", purpose='quantization="nf4"')
    finally:
        log.disabled = False
    from transformers import BitsAndBytesConfig

    if getattr(skeleton.config, "quantization_config", None) is not None:
        raise ModelError("the checkpoint is quantised already; use its unquantised original, or quantization=None")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept(skeleton),
    )


def kept(model: PreTrainedModel) -> list[str]:
    """Return the names of the modules whose weights stay as they are: all that lies beside the language model.

    That is the vision tower, the projector and the output head; embeddings are never quantised. Together they
    hold little of the weights, and much of what is lost by rounding.

    Raises:
        ModelError: The language model cannot be told from the rest.
    """
    language = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is language), "").split(".")
    if path == [""]:
        raise ModelError(f"{type(model).__name__} does not say which part is its language model; use quantization=None")
    beside = []
    for depth, step in enumerate(path):
        above = path[:depth]
        children = (name for name, _ in model.get_submodule(".".join(above)).named_children())
        beside += [".".join([*above, name]) for name in children if name != step]
    return beside


def finish(model: PreTrainedModel) -> None:
    """Make a model that has just been quantised compute the same in training and at rest, on every processor.

    bitsandbytes reorders the weights in place at the first answer on some CPUs, computes in bfloat16 from then on
    whatever the type, and cannot train on the new order.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
