"""Finding, checking and reading a model with transformers; every way it fails becomes a `ModelError`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _processes
from vlm_tune.errors import ModelError
from vlm_tune.vlm import fused, quantization
from vlm_tune.vlm.identity import folder_digest
from vlm_tune.vlm.quantization import Quantization
from vlm_tune.vlm.resident import Resident

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

__all__ = [
    "model_folder",
    "pick_device",
    "pick_dtype",
    "read_config",
    "read_model",
    "read_processor",
    "skeleton",
    "source_of",
    "without_bars",
]

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError)
"""What transformers raises for a folder or id it cannot use."""


def model_folder(model: str | Path) -> Path | None:
    """Return the folder a model is in, or None for a Hugging Face id.

    Raises:
        ModelError: It is neither; or the folder holds no model, and the message says what it holds instead.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if isinstance(model, str) and _HUB_ID.fullmatch(model) and not model.startswith("."):
            return None
        kind = "is a file, not a model folder" if folder.exists() else "does not exist"
        raise ModelError(f"{folder} {kind}; give a folder written by save_pretrained, or a Hugging Face id")
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ModelError(f"{folder} holds an adapter, not a model; load it with vlm_tune.Adapter.load")
    if not (folder / "config.json").exists():
        raise ModelError(f"{folder} has no config.json, so it is not a model; give a folder of save_pretrained")
    if not any(folder.glob("*.safetensors")):
        other = next((path.name for pattern in ("*.bin", "*.pt*") for path in folder.glob(pattern)), None)
        found = f"only {other}, which is pickled and could run code" if other else "no weights"
        raise ModelError(f"{folder} holds {found}; save the model with save_pretrained as safetensors")
    return folder


def read_config(source: str | Path, *, revision: str | None) -> PreTrainedConfig:
    """Read a model's configuration and check that it is a vision-language model's.

    Raises:
        ModelError: It cannot be found or read, or belongs to another kind of model.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ModelError(_why_unreadable(source, error)) from error
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelError(
            f"{source} is a {config.model_type!r} model, which does not answer questions about images; "
            "choose a vision-language model, e.g. Qwen/Qwen3-VL-8B-Instruct"
        )
    return config


def source_of(source: str | Path, config: PreTrainedConfig, *, revision: str | None) -> str:
    """Return which weights a model has: `id@commit`, or `sha256:` and the start of its folder's digest.

    Raises:
        ModelError: The folder cannot be read.
    """
    if isinstance(source, str):
        return f"{source}@{getattr(config, '_commit_hash', None) or revision or 'main'}"
    try:
        return f"sha256:{folder_digest(source)[:16]}"
    except (OSError, json.JSONDecodeError) as error:
        raise ModelError(f"cannot read the model in {source}: {error}") from error


def pick_device(device: str) -> str:
    """Return the device to use: the one asked for, or the fastest kind there is; of several GPUs, this process's.

    Raises:
        ModelError: torch does not know the device, or the machine does not have it.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return _own_gpu()
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


def _own_gpu() -> str:
    if _processes.local_world_size() == 1:
        return "cuda"
    import torch

    if _processes.local_world_size() > torch.cuda.device_count():
        raise ModelError(
            f"{_processes.local_world_size()} processes were started but only {torch.cuda.device_count()} GPUs are "
            "here; start one process a GPU"
        )
    # Triton starts its kernels on the current GPU, wherever their tensors are.
    torch.cuda.set_device(_processes.local_rank())
    return f"cuda:{_processes.local_rank()}"


def pick_dtype(device: str, config: PreTrainedConfig) -> str:
    """Return the type for `auto`: float32 on a CPU, half precision elsewhere."""
    if device == "cpu":
        return "float32"
    stored = str(getattr(config, "dtype", None)).removeprefix("torch.")
    return stored if stored in ("bfloat16", "float16") else "bfloat16"


def read_model(
    source: str | Path,
    config: PreTrainedConfig,
    *,
    revision: str | None,
    device: str,
    dtype: str,
    quantize: Quantization | None = None,
) -> Resident:
    """Read weights and processor.

    Raises:
        ModelError: They cannot be read, or weights are missing, which transformers would fill with noise.
        MissingExtraError: They are to be quantised, and what does that is not installed.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    exported = quantization.stored(config)
    how = quantize or exported
    if how in quantization.BITSANDBYTES:
        quantization.require(how, device)
    settings = quantization.settings(skeleton(config), quantize, dtype) if quantize else None
    processor = read_processor(source, revision=revision)
    if how is None:
        fused.warm_up(config, dtype, device)
    try:
        with without_bars():
            model, report = AutoModelForImageTextToText.from_pretrained(
                source,
                config=quantization.computing_in(config, dtype),
                revision=revision,
                dtype=getattr(torch, dtype),
                device_map=None if device == "cpu" and how is None else {"": device},
                quantization_config=settings,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except torch.OutOfMemoryError as error:
        smaller = "" if how else ', or quantization="nf4"'
        raise ModelError(
            f"{source} does not fit the memory of {device}; use a smaller model or dtype{smaller}"
        ) from error
    except (*_UNREADABLE, SafetensorError) as error:
        raise ModelError(_why_unreadable(source, error)) from error
    _check_complete(source, report)
    if how in quantization.BITSANDBYTES:
        quantization.finish(model)
    if exported in quantization.BITSANDBYTES:
        quantization.cast_rest(model, dtype)
    return Resident(
        model=model,
        processor=processor,
        device=model.device,
        dtype=model.dtype,
        quantization=how,
        exported=exported is not None,
    )


def read_processor(source: str | Path, *, revision: str | None) -> ProcessorMixin:
    """Read a model's processor.

    Raises:
        ModelError: It cannot be read, or is not one for images and text.
    """
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(source, revision=revision, trust_remote_code=False)
    except _UNREADABLE as error:
        raise ModelError(_why_unreadable(source, error)) from error
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(f"{source} has no processor for images and text; copy the base model's processor files")
    return processor


def skeleton(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the model of a configuration on torch's meta device: names and shapes, no memory."""
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _check_complete(source: str | Path, report: dict[str, Any]) -> None:
    wrong = [*report.get("missing_keys", ()), *report.get("mismatched_keys", ())]
    if wrong:
        raise ModelError(
            f"the weights in {source} are incomplete: {len(wrong)} tensors are missing or of another shape, "
            f"first {min(map(str, wrong))}; download or save the model again"
        )


def _why_unreadable(source: str | Path, error: BaseException) -> str:
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(source, Path):
        return f"cannot read the model in {source}: {reason}"
    return (
        f"{source!r} is no folder here and cannot be read from the Hugging Face Hub ({reason}); "
        "check the spelling, the network and, for gated models, your login"
    )


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar per call; the switch is put back as it was."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
