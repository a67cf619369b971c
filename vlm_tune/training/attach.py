"""What is put onto the resident model: fresh adapters, saved adapters, and a promise to tidy up."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import AdapterError
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.full import keep_in_float32, modules_in_full

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["fresh", "saved", "speaking", "undisturbed"]

_WORDS = 0.02
"""Size of the values that stand in for B: enough to show in the logits, and little beside the frozen weights."""


def fresh(config: TrainConfig, target_modules: str) -> Callable[[PreTrainedModel], PeftModel]:
    """Return what wraps a model with new adapters, for `Resident.adapted`.

    They are float32 whatever the model's type, start from the configuration's seed and change nothing yet: B
    is 0. Modules trained in full are float32 copies; the base keeps its own.

    Args:
        config: Rank, scale, dropout, rsLoRA, DoRA, modules trained in full, and seed.
        target_modules: Pattern of the full names of the layers to adapt.

    Returns:
        What wraps; it raises an AdapterError where `modules_in_full` does.
    """

    def wrap(model: PreTrainedModel) -> PeftModel:
        import torch
        from peft import LoraConfig, get_peft_model

        in_full = modules_in_full(model, config.modules_to_save, target_modules=target_modules)
        lora = LoraConfig(
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
            target_modules=target_modules,
            modules_to_save=list(in_full) or None,
            task_type="CAUSAL_LM",
        )
        with _generators_kept(model), _without_deprecations():
            torch.manual_seed(config.seed)
            wrapped = get_peft_model(model, lora)
        keep_in_float32(wrapped)
        return wrapped

    return wrap


def saved(path: Path) -> Callable[[PreTrainedModel], PeftModel]:
    """Return what wraps a model with the adapter saved in a folder, for `Resident.adapted`.

    What is returned raises an AdapterError when the folder holds no adapter, or one for other layers: PEFT
    only warns about layers that get nothing, and then answers like the base.
    """

    def wrap(model: PreTrainedModel) -> PeftModel:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
        from safetensors.torch import load_file

        try:
            tensors = load_file(path / "adapter_model.safetensors")
            with _without_deprecations():
                wrapped = get_peft_model(model, LoraConfig.from_pretrained(str(path)))
            keep_in_float32(wrapped)
            result = set_peft_model_state_dict(wrapped, tensors)
        except (OSError, ValueError, RuntimeError) as error:
            name = type(model).__name__
            raise AdapterError(f"the adapter in {path} does not fit this {name}: {error}") from error
        except KeyError as error:
            # PEFT looks every tensor of a module trained in full up by its name.
            raise AdapterError(f"the adapter in {path} does not fit: it has no tensor {error}") from error
        missing = [name for name in result.missing_keys if ".lora_" in name or ".modules_to_save." in name]
        if missing or result.unexpected_keys:
            raise AdapterError(
                f"the adapter in {path} does not fit: {len(missing)} adapted layers get nothing and "
                f"{len(result.unexpected_keys)} saved tensors have no layer, first "
                f"{(missing or result.unexpected_keys)[0]}"
            )
        return wrapped.eval()

    return wrap


@contextmanager
def undisturbed(model: PreTrainedModel) -> Iterator[None]:
    """Give a model's settings, the random generators and the logs' level back as they were.

    TRL and transformers write token ids into the model's configuration, replace its `forward`, tag it, seed
    the global generators and log: none of that outlives the block.
    """
    import numpy as np
    from transformers.utils import logging

    attributes, settings = dict(vars(model)), _settings(model)
    python_state, numpy_state, verbosity = random.getstate(), np.random.get_state(), logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with _generators_kept(model), _without_deprecations():
            yield
    finally:
        logging.set_verbosity(verbosity)
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        _stop_checkpointing(model)
        for name in set(vars(model)) - set(attributes):
            delattr(model, name)
        for owner, name, value in settings:
            setattr(owner, name, value)


@contextmanager
def speaking(model: PeftModel) -> Iterator[None]:
    """Let fresh adapters say something inside the block: their B is zero, so that nothing could be compared."""
    import torch

    generator = torch.Generator().manual_seed(0)
    kept = [(one, one.detach().clone()) for name, one in model.named_parameters() if ".lora_B." in name]
    try:
        for parameter, _ in kept:
            parameter.data.copy_(_WORDS * torch.randn(parameter.shape, generator=generator))
        yield
    finally:
        for parameter, before in kept:
            parameter.data.copy_(before)


@contextmanager
def _without_deprecations() -> Iterator[None]:
    # What the libraries tell each other about their coming versions is no business of our users.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _generators_kept(model: PreTrainedModel) -> AbstractContextManager[None]:
    import torch

    # By name: torch warns where a machine has several GPUs. The others belong to other processes.
    return torch.random.fork_rng([model.device] if model.device.type == "cuda" else [])


def _settings(model: PreTrainedModel) -> list[tuple[Any, str, Any]]:
    owners = (model.config, model.config.get_text_config(), model.generation_config)
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "use_cache")
    return [
        (owner, name, copy.copy(getattr(owner, name)))
        for owner in owners
        for name in names
        if owner is not None and hasattr(owner, name)
    ]


def _stop_checkpointing(model: PreTrainedModel) -> None:
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        # transformers 5.23 renamed it, and warns about the old name.
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    if getattr(model, "_require_grads_hook", None) is not None:
        model.disable_input_require_grads()
