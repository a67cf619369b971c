"""The one model whose weights are in memory, and how adapters are put on it and taken off again.

A process holds one set of weights. Base answers, the overfit gate, training and adapter answers all use it:

    resident = vlm.load()                                   # the resident model, read if it is not there yet
    with resident.adapted(lambda model: get_peft_model(model, lora_config)) as peft_model:
        ...                                                 # train peft_model, or answer with the adapter on
    # here the adapter is gone, whatever happened inside, and the base is bit for bit what it was

PEFT puts its layers into `resident.model` itself, so inside the block everything that takes the model
(scoring, generation, `answering.answers`) answers with the adapter, whether it is given `resident.model` or
`peft_model`. Never merge into the resident model: rounding would change the base.

At rest, which is how `load` hands it out and how `adapted` leaves it, no parameter requires a gradient, the
model is in eval mode, and neither checkpointing nor hooks of a training run are left on.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import ModelError
from vlm_tune.families import Family, family_in
from vlm_tune.vlm.quantization import check_takes_adapters, hush

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["Resident", "drop", "hold"]


@dataclass(eq=False)
class Resident:
    """A loaded model with its processor.

    Attributes:
        model: The model, on its device, at rest.
        processor: Its processor.
        device: Where it is.
        dtype: The type of its weights; of its products, where the weights are quantised.
        quantization: How the language model's weights are stored in fewer bits; None where they are not.
        exported: Whether they are stored so on disk too, and not only in memory.
        sharded: Whether its layers are spread over several processes; all must then call it together.
        adapted_now: Whether an adapter is on it at this moment.
        kept: What trainings keep of their photos for one another; freed with the weights.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    device: torch.device
    dtype: torch.dtype
    quantization: str | None = None
    exported: bool = False
    sharded: bool = False
    adapted_now: bool = field(default=False, init=False)
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def family(self) -> Family:
        """What is where in this architecture.

        Raises:
            ModelError: The architecture is not known, and its layers are not found by looking.
        """
        return family_in(self.model)

    @contextmanager
    def adapted(self, wrap: Callable[[PreTrainedModel], PeftModel]) -> Iterator[PeftModel]:
        """Put an adapter on for the block; afterwards the base is as it was, Ctrl-C and errors included.

        Args:
            wrap: Takes the bare model and returns it wrapped by PEFT.

        Raises:
            AdapterError: The weights are quantised in a way that takes no adapter.
            ModelError: There is an adapter on the model already.
        """
        check_takes_adapters(self.quantization, exported=self.exported)
        hush()
        if self.adapted_now:
            raise ModelError("the resident model already carries an adapter; let that one finish first")
        # Trainers write into all three: the cache switch, the special tokens, how to generate.
        configs = (self.model.config, self.model.config.get_text_config(), self.model.generation_config)
        settings = [dict(vars(config)) for config in configs]
        self.adapted_now = True
        try:
            wrapped = wrap(self.model)
            if self.quantization is not None:
                # PEFT has to know it to wrap the layers. TRL, told the same, rounds the adapters to bfloat16, in
                # which small updates vanish. Nothing else of PEFT's `prepare_model_for_kbit_training` is needed:
                # at rest all weights are frozen, checkpointing asks for no input gradients, and the norms, which
                # it copies to float32, compute in float32 anyway.
                self.model.is_loaded_in_4bit = False
            yield wrapped
        finally:
            if self.quantization is not None:
                self.model.is_loaded_in_4bit = True
            _take_off(self.model)
            _rest(self.model)
            for config, values in zip(configs, settings, strict=True):
                vars(config).clear()
                vars(config).update(values)
            self.adapted_now = False


_lock = threading.RLock()
_held: tuple[str, Resident] | None = None


def hold(key: str, read: Callable[[], Resident]) -> Resident:
    """Return the resident model of this key; another one's weights are dropped before it is read.

    Raises:
        ModelError: Another model is resident and an adapter is at work on it.
    """
    global _held
    with _lock:
        if _held is None or _held[0] != key:
            drop()
            fresh = read()
            _rest(fresh.model)
            _held = (key, fresh)
        return _held[1]


def drop(key: str | None = None) -> None:
    """Free the resident model's weights, if there is one and it has this key (any, for None).

    Raises:
        ModelError: An adapter is at work on it.
    """
    global _held
    with _lock:
        if _held is None or key not in (None, _held[0]):
            return
        if _held[1].adapted_now:
            raise ModelError("the resident model is in use with an adapter; finish that before loading another")
        _held[1].kept.clear()
        _held = None
        _free_memory()


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _rest(model: PreTrainedModel) -> None:
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        # Newer transformers calls it activation checkpointing and warns at the old name.
        if hasattr(model, "activation_checkpointing_disable"):
            model.activation_checkpointing_disable()
        else:
            model.gradient_checkpointing_disable()
    for module in model.modules():
        # PEFT and trainers make the embeddings require gradients; each call forgets the hooks of the last.
        for key, hook in list(module._forward_hooks.items()):
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]
    model.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    model.eval()


def _take_off(model: PreTrainedModel) -> None:
    # Works on the layers and not through PEFT's wrapper, which does not exist if wrapping was interrupted.
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    # From the inside out, so that the names stay right; a module trained in full is a copy beside the original.
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
            own = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module.original_module
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, own)
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in vars(model):
            delattr(model, mark)
