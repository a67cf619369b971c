"""Weights in eight or four bits by bitsandbytes: which of a model's they are, and what stays as it is.

`int8` is LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339): weights in 8 bits with a scale for every row. A product is
of 8-bit numbers, but for the columns of its input that hold a number beyond 6, which are multiplied as they are. Which
those are is seen over a whole batch, so that an answer can depend, by rounding, on the photos asked beside it.

`nf4` is the format of QLoRA (Dettmers et al. 2023, arXiv 2305.14314): sixteen levels at the quantiles of a normal
distribution, scaled in groups of 64 weights, and the scales quantised again: 4.127 bits a weight. A product turns its
weights back into the model's type first, so this saves memory and costs time.
"""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Literal

from vlm_tune import _imports
from vlm_tune.errors import AdapterError, ModelError
from vlm_tune.families import family_in, linear_names

if TYPE_CHECKING:
    from torch import nn
    from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

__all__ = [
    "BITSANDBYTES",
    "Quantization",
    "cast_rest",
    "check_takes_adapters",
    "computing_in",
    "finish",
    "hush",
    "kept",
    "require",
    "settings",
    "stored",
    "weight_bytes",
]

Quantization = Literal["int8", "nf4"]
"""How weights are stored in fewer bits than they are computed with."""

BITSANDBYTES = ("int8", "nf4", "fp4")
"""The formats that bitsandbytes reads; `fp4` is only ever read."""

_NEEDLESS = ("Failed to load CPU gemm_4bit_forward", "MatMul8bitLt: inputs will be cast")


def settings(skeleton: PreTrainedModel, quantization: Quantization, dtype: str) -> BitsAndBytesConfig:
    """Return what transformers takes to quantise a model while it reads it.

    Args:
        skeleton: The model, weights or not.
        quantization: The format.
        dtype: The type of all that is not quantised and, but for `int8`, of products.

    Raises:
        ModelError: The checkpoint is quantised already, or its language model cannot be told from the rest.
    """
    from transformers import BitsAndBytesConfig

    already = stored(skeleton.config)
    if already is not None:
        raise ModelError(
            f"the checkpoint is quantised already ({already}); quantise its unquantised original, "
            "or use it as it is: quantization=None"
        )
    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept(skeleton))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept(skeleton),
    )


def require(quantization: str, device: str) -> None:
    """Check that bitsandbytes is there, and that it knows the device.

    Raises:
        MissingExtraError: It is not installed.
        ModelError: It cannot use the device.
    """
    hush()
    bitsandbytes = _imports.require("bitsandbytes", extra="quant", purpose=f"a model in {quantization}")
    known = bitsandbytes.supported_torch_devices
    kind = device.split(":")[0]
    if kind not in known:
        raise ModelError(f"bitsandbytes cannot use {kind}, only {', '.join(sorted(known))}; choose another device")


def hush() -> None:
    """Keep two messages of bitsandbytes from our users; whatever else it logs is still logged.

    While it is imported, which PEFT does too, it asks for a package that none of this needs. And at every `int8`
    product of every layer it says that the input becomes float16 to be quantised, as it should.
    """
    for name in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
        logging.getLogger(name).addFilter(_needed)


def _needed(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NEEDLESS)


def stored(config: PreTrainedConfig) -> str | None:
    """Return how the weights of a checkpoint are quantised: `int8`, `nf4`, another method's name; None if not."""
    found = _as_stored(config)
    if not found:
        return None
    method = found.get("quant_method")
    if method != "bitsandbytes":
        return str(getattr(method, "value", method))
    return "int8" if found.get("load_in_8bit") else str(found.get("bnb_4bit_quant_type"))


def computing_in(config: PreTrainedConfig, dtype: str) -> PreTrainedConfig:
    """Return the configuration of a checkpoint in four bits so that its products are of a type; any other as it is."""
    found = _as_stored(config)
    if not found.get("load_in_4bit"):
        return config
    changed = copy.deepcopy(config)
    changed.quantization_config = {**found, "bnb_4bit_compute_dtype": dtype}
    return changed


def _as_stored(config: PreTrainedConfig) -> dict[str, object]:
    found = getattr(config, "quantization_config", None) or {}
    return dict(found if isinstance(found, dict) else found.to_dict())


def check_takes_adapters(quantization: str | None, *, exported: bool) -> None:
    """Refuse adapters on weights that they could not be trained on, or not be merged into.

    Args:
        quantization: How the weights are quantised.
        exported: Whether they are stored so, and not only read so.

    Raises:
        AdapterError: They are stored quantised, or are in `int8`.
    """
    instead = 'train on the unquantised model, or on VLM(..., quantization="nf4") of it'
    if exported:
        raise AdapterError(
            f"the model's weights are stored in {quantization}, so an adapter on them could never be merged; {instead}"
        )
    if quantization == "int8":
        raise AdapterError(f'quantization="int8" is for answers; {instead}')


def kept(model: PreTrainedModel) -> list[str]:
    """Return the modules whose linear layers stay as they are: all that are not in the language model's blocks.

    That is the vision tower, the projector, the output head and what routes tokens to experts; embeddings, norms
    and convolutions are never quantised. Together they hold little of the weights, and much of what is lost by
    rounding. Which is which is known of each architecture, or found by looking: see `vlm_tune.families`.

    Raises:
        ModelError: The language model cannot be told from the rest.
    """
    try:
        family, names = family_in(model), linear_names(model)
    except ModelError as error:
        raise ModelError(f"{error}; without knowing them nothing is quantised: use quantization=None") from error
    quantised = {name for name in names if (family.part_of(name) or ("",))[0] == "language"}
    return _around(model, "", set(names), quantised)


def _around(module: nn.Module, path: str, linear: set[str], quantised: set[str]) -> list[str]:
    """Return the outermost modules that hold linear layers and none to be quantised."""

    def holds(name: str, those: set[str]) -> bool:
        return any(each == name or each.startswith(f"{name}.") for each in those)

    found = []
    for own, child in module.named_children():
        name = f"{path}.{own}" if path else own
        if not holds(name, quantised):
            found += [name] if holds(name, linear) else []
        elif name not in quantised:
            found += _around(child, name, linear, quantised)
    return found


def finish(model: PreTrainedModel) -> None:
    """Make a model that has just been read compute the same in training and at rest, on every processor.

    bitsandbytes reorders four-bit weights in place at the first answer on some CPUs, computes in bfloat16 from then on
    whatever the type, and cannot train on the new order.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def cast_rest(model: PreTrainedModel, dtype: str) -> None:
    """Put all that is not quantised into a type: transformers leaves what an export holds as it is stored."""
    import torch
    from bitsandbytes.nn import Params4bit

    for parameter in model.parameters():
        if parameter.is_floating_point() and not isinstance(parameter, Params4bit):
            parameter.data = parameter.data.to(getattr(torch, dtype))


def weight_bytes(model: PreTrainedModel) -> int:
    """Return the memory that a model's weights take, with the scales of quantised ones; shared ones count once."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in model.state_dict().values()}.values())
