"""What a merged model is made of: a base, and one adapter or several with weights."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import MergeError
from vlm_tune.task import Task
from vlm_tune.training.merging.updates import CONFIG_FILE, WEIGHTS_FILE, read_sums
from vlm_tune.vlm import VLM, loading

if TYPE_CHECKING:
    from vlm_tune.training.adapter import Adapter

__all__ = ["Parts", "parts_of"]


@dataclass(frozen=True)
class Parts:
    """A base, and what goes into it.

    Attributes:
        base: The base as the adapters were trained on it, perhaps quantised.
        adapters: Folders of adapters, and what each one's update is multiplied by.
        task: The question they were trained for.
        source: Which weights they were trained on; see `VLM.source`.
        fingerprint: Changes with any of that.
    """

    base: VLM
    adapters: tuple[tuple[Path, float], ...]
    task: Task
    source: str
    fingerprint: str

    def folder(self) -> Path:
        """Return the folder of the base's weights as they are stored, downloaded if need be.

        Raises:
            MergeError: It is not there any more, or its weights are not those the adapters were trained on, or they
                are quantised on disk.
        """
        if (kind := self.base.unquantized().stored_quantization) is not None:
            raise MergeError(
                f"{self.base.name} is stored in {kind}, which cannot take an adapter's update; train on the "
                "unquantised model and merge into that"
            )
        stored = self.source.partition("+")[0]
        folder = self.base.folder
        if folder is None:
            from huggingface_hub import snapshot_download

            wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
            commit = stored.rpartition("@")[2]
            return Path(snapshot_download(self.base.model, revision=commit, allow_patterns=wanted))
        if folder.is_dir():
            now = loading.source_of(folder, self.base.config, revision=None)
            if now != stored:
                raise MergeError(
                    f"the weights in {folder} are not those that the adapter was trained on ({now}, and it was "
                    f"{stored}); give it its own base: vlm_tune.Adapter.load(path, base=vlm_tune.VLM(folder))"
                )
        return folder

    def as_one(self, folder: Path) -> Path:
        """Return the folder of an adapter that is the sum; where it is more than the one adapter, it is written.

        A is all adapters' A below each other, B all their B beside each other, each times its scale and weight: their
        product is the sum of the updates, as of PEFT's `add_weighted_adapter` with `cat`.

        Args:
            folder: An empty folder.
        """
        import torch
        from safetensors.torch import save_file

        if len(self.adapters) == 1 and self.adapters[0][1] == 1:
            return self.adapters[0][0]
        tensors: dict[str, torch.Tensor] = {}
        ranks: dict[str, int] = {}
        for name, update in read_sums(self.adapters).items():
            module = name.removesuffix(".weight")
            a = torch.cat([term.a.read().float() for term in update.terms])
            b = torch.cat([term.scale * term.b.read().float() for term in update.terms], dim=1)
            tensors[f"base_model.model.{module}.lora_A.weight"] = a
            tensors[f"base_model.model.{module}.lora_B.weight"] = b
            ranks[module] = len(a)
        save_file(tensors, folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(_settings(ranks)), encoding="utf-8")
        return folder


def parts_of(adapters: Sequence[tuple[Adapter, float]]) -> Parts:
    """Return what adapters and weights make.

    Raises:
        MergeError: There is none, a weight is 0 or no number, or they have different bases or tasks.
    """
    if not adapters:
        raise MergeError("there is no adapter to merge; give at least one, with its weight: [(adapter, 1.0)]")
    first = adapters[0][0]
    for adapter, weight in adapters:
        if not math.isfinite(weight) or weight == 0:
            raise MergeError(
                f"the weight of {adapter.name} is {weight}; give it a number other than 0, or leave it out"
            )
        if adapter.card.base.source != first.card.base.source:
            raise MergeError(
                f"{adapter.path} was trained on {adapter.card.base.model} ({adapter.card.base.source}) and "
                f"{first.path} on {first.card.base.model} ({first.card.base.source}); adapters of one base can be "
                "merged together"
            )
        if adapter.task != first.task:
            raise MergeError(
                f"{adapter.path} and {first.path} were trained for different tasks, so no probe could be asked of "
                "both; merge adapters of one task"
            )
    if len(adapters) == 1 and adapters[0][1] == 1:
        fingerprint = first.fingerprint
    else:
        all_of_them = " ".join(f"{adapter.fingerprint}*{weight!r}" for adapter, weight in adapters)
        fingerprint = hashlib.sha256(all_of_them.encode()).hexdigest()[:16]
    return Parts(
        base=first.base,
        adapters=tuple((adapter.path, float(weight)) for adapter, weight in adapters),
        task=first.task,
        source=first.card.base.source,
        fingerprint=fingerprint,
    )


def _settings(ranks: dict[str, int]) -> dict[str, Any]:
    # A scale of 1 in every layer: alpha is the rank.
    patterns = {re.escape(module): rank for module, rank in ranks.items()}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 1,
        "lora_alpha": 1,
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": list(ranks),
    }
