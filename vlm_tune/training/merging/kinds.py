"""Which kinds of adapter are merged, and the scale of each layer's update."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_tune.errors import MergeError

__all__ = ["check_kind", "scale"]

Settings = Mapping[str, Any]

_UNDERSTOOD = frozenset(
    [
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "init_lora_weights",
    ]
)
"""Settings that say what the update is; the merge goes by them."""

_DONE_WITH = frozenset(
    [
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "lora_dropout",
        "runtime_config",
        "megatron_core",
        "qalora_group_size",
        "eva_config",
        "corda_config",
        "lora_ga_config",
        "loftq_config",
        "ensure_weight_tying",
    ]
)
"""Settings that were for training, or say again what the tensors' names say."""

_IN_WORDS = {
    "fan_in_fan_out": "transposed weights (fan_in_fan_out)",
    "bias": "trained biases (bias)",
    "lora_bias": "biases of its own (lora_bias)",
    "trainable_token_indices": "single trained tokens (trainable_token_indices)",
    "target_parameters": "updates of bare parameters (target_parameters)",
    "alora_invocation_tokens": "an update for some tokens only (alora_invocation_tokens)",
    "layer_replication": "repeated layers (layer_replication)",
}

_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
"""First values of A and B that leave the base as it is."""


def check_kind(config: Settings, folder: Path) -> None:
    """Refuse an adapter whose update of the weights this library does not know for certain.

    Taken are LoRA, rsLoRA and DoRA on linear layers, ranks and scales by layer, and modules trained in full. A setting
    that is not known to be harmless is refused by its name, so that a kind that does not exist yet is not merged
    into something else.

    Args:
        config: What `adapter_config.json` says.
        folder: The adapter's, for the message.

    Raises:
        MergeError: The adapter is of another kind.
    """
    kind = str(config.get("peft_type")).rpartition(".")[2]
    if kind != "LORA":
        raise MergeError(
            f"{folder} holds an adapter of the kind {kind}, and LoRA, rsLoRA and DoRA are merged; "
            "answer with the adapter itself, or use PEFT's own merge, which proves nothing"
        )
    known = _UNDERSTOOD | _DONE_WITH
    odd = [name for name, value in config.items() if name not in known and value and value != "none"]
    if odd:
        named = " and ".join(_IN_WORDS.get(name, name) for name in odd)
        raise MergeError(
            f"{folder} is an adapter with {named}, which this merge does not take; "
            "answer with the adapter itself, or train without"
        )
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_STARTS:
        raise MergeError(
            f"{folder} began from {start!r}, which changes the base's weights too; save it as plain LoRA with PEFT's "
            "save_pretrained(path_initial_model_for_weight_conversion=...), and merge that"
        )


def scale(config: Settings, module: str, rank: int) -> float:
    """Return what B A is multiplied by in one layer: alpha / r, or alpha / sqrt(r) for rsLoRA.

    Args:
        config: What `adapter_config.json` says; its patterns go before its `r` and `lora_alpha`.
        module: The layer's full name.
        rank: The rank of the layer's matrices.

    Raises:
        MergeError: The matrices have another rank than the settings say.

    Examples:
        >>> settings = {"r": 8, "lora_alpha": 16, "alpha_pattern": {"v_proj": 4}}
        >>> scale(settings, "layers.0.q_proj", 8), scale(settings, "layers.0.v_proj", 8)
        (2.0, 0.5)
    """
    said = _by_pattern(config.get("rank_pattern"), module, config["r"])
    if said != rank:
        raise MergeError(f"{module} has matrices of rank {rank}, and the adapter's settings say {said}; train it again")
    alpha = float(_by_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    # PEFT's rule: the first key that the name ends with, as a pattern, from a dot on.
    found = (value for key, value in (patterns or {}).items() if re.match(rf"(.*\.)?({key})$", module))
    return next(found, default)
