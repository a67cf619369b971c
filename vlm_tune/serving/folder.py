"""What a server would trip over in a model folder: weights, processor, template, settings."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import ModelError, VlmTuneError
from vlm_tune.serving.records import Finding
from vlm_tune.vlm.loading import read_processor
from vlm_tune.vlm.prompts import end_of_turn_id

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

__all__ = ["check_generation", "check_processor", "check_weights", "ends_by_itself", "stored_dtype"]

_COPY = "copy it from the base model's folder"
_AGAIN = "merge or download the model again"
_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


def check_weights(folder: Path, config: PreTrainedConfig) -> list[Finding]:
    """Return what is wrong with the weights: cut off, missing, of another shape, superfluous, of several types.

    transformers matches the files' names and shapes with the model; only their headers are read.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    found = []
    if not getattr(config, "architectures", None):
        found.append(_error("config.json names no architectures, by which servers choose the model's class", _COPY))
    if (quantized := getattr(config, "quantization_config", None)) is not None:
        method = dict(quantized if isinstance(quantized, dict) else quantized.to_dict()).get("quant_method", "?")
        what = f"the weights are quantised with {method}, which servers load for some architectures only"
        return [*found, _warning(what, "serve the unquantised merge, or compare answers with serving_parity")]
    try:
        with _silent():
            _, report = AutoModelForImageTextToText.from_pretrained(
                folder,
                config=config,
                device_map="meta",
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        broken = _cut_off(folder)
        what = f"{broken[0]} is cut off" if broken else f"the weights cannot be read: {str(error).splitlines()[0]}"
        return [*found, _error(what, _AGAIN)]
    missing, other = sorted(report["missing_keys"]), sorted(entry[0] for entry in report["mismatched_keys"])
    if missing:
        found.append(_error(f"{len(missing)} weights are missing, first {missing[0]}", _AGAIN))
    if other:
        found.append(_error(f"{len(other)} weights have another shape than the model's, first {other[0]}", _AGAIN))
    if strange := sorted(report["unexpected_keys"]):
        what = f"{len(strange)} weights belong to no part of the model, first {strange[0]}; vLLM refuses them"
        found.append(_warning(what, "save the model with save_pretrained, or remove them"))
    types = Counter(dtype for dtype, _ in _tensors(folder))
    if len(types) > 1:
        shown = ", ".join(f"{count} {_DTYPES.get(dtype, dtype)}" for dtype, count in types.most_common())
        found.append(_warning(f"the weights have several types ({shown}); a server loads all in one", "store one type"))
    return found


def stored_dtype(folder: Path, config: PreTrainedConfig) -> str:
    """Return the type that most of a folder's weights have, as torch calls it; the configuration's without weights."""
    sizes: Counter[str] = Counter()
    for dtype, size in _tensors(folder):
        sizes[dtype] += size
    known = [_DTYPES[dtype] for dtype, _ in sizes.most_common() if dtype in _DTYPES]
    return known[0] if known else str(config.dtype or "auto").removeprefix("torch.")


def check_processor(folder: Path) -> tuple[ProcessorMixin | None, list[Finding]]:
    """Return the folder's processor, and what is wrong with it or its chat template."""
    try:
        processor = read_processor(folder, revision=None)
    except ModelError as error:
        return None, [_error(str(error), "copy the base model's processor and tokenizer files into the folder")]
    found = []
    if getattr(processor, "chat_template", None) is None:
        found.append(
            _error("there is no chat template, so a server cannot pose a question", f"{_COPY}: chat_template.jinja")
        )
    elif not (folder / "chat_template.jinja").exists():
        what = "the chat template is inside a JSON file, so that the commands cannot name it; SGLang may take another"
        found.append(_warning(what, "save the processor with save_pretrained, which writes chat_template.jinja"))
    if not (folder / "preprocessor_config.json").exists():
        what = "there is no preprocessor_config.json; a server on transformers 4 looks for the image settings there"
        found.append(_warning(what, f"use a server on transformers 5, or {_COPY}"))
    return processor, found


def check_generation(folder: Path, config: PreTrainedConfig, processor: ProcessorMixin) -> list[Finding]:
    """Return what is wrong with the settings of generation: what never ends, and what changes the likeliest answer."""
    try:
        end = end_of_turn_id(processor)
    except VlmTuneError:
        return []
    path = folder / "generation_config.json"
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        return [_error(f"generation_config.json cannot be read: {error}", _COPY)]
    ends = settings.get("eos_token_id", getattr(config.get_text_config(), "eos_token_id", None))
    known = {*(ends if isinstance(ends, list) else [ends]), processor.tokenizer.eos_token_id}
    token = processor.tokenizer.decode([end])
    found = []
    if end not in known:
        what = f"nothing in the folder says that {token!r} ends an answer, so a server would write on behind it"
        found.append(_error(what, f"add {end} to eos_token_id in generation_config.json"))
    elif not ends_by_itself(processor):
        what = f"only generation_config.json says that {token!r} ends an answer, so vLLM must read it"
        found.append(_warning(what, f"set the tokenizer's eos_token to {token!r}"))
    for name in ("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram_size"):
        value = settings.get(name)
        if value and value != (1.0 if name == "repetition_penalty" else 0):
            what = f"generation_config.json sets {name} to {value}, which changes answers even at temperature 0"
            found.append(_warning(what, "keep the option of the commands that leaves it out, or remove it"))
    return found


def ends_by_itself(processor: ProcessorMixin) -> bool:
    """Whether the tokenizer's own end token is the one that ends an answer."""
    return bool(processor.tokenizer.eos_token_id == end_of_turn_id(processor))


def _cut_off(folder: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    broken = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError):
            broken.append(path.name)
    return broken


def _tensors(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield the type and the number of elements of every stored tensor, but for those of files that are cut off."""
    from safetensors import safe_open

    broken = set(_cut_off(folder))
    for path in sorted(folder.glob("*.safetensors")):
        if path.name not in broken:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    part = file.get_slice(name)
                    yield part.get_dtype(), math.prod(part.get_shape())


def _error(what: str, next_step: str) -> Finding:
    return Finding(level="error", what=what, next_step=next_step)


def _warning(what: str, next_step: str) -> Finding:
    return Finding(level="warning", what=what, next_step=next_step)


@contextmanager
def _silent() -> Iterator[None]:
    # transformers reports what is missing on stderr, in a table of its own.
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
