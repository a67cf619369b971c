"""Adapters that nobody trained, with random values everywhere, and the folders of bases they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

import vlm_tune as vt
from tests.families.tiny import tiny_model
from vlm_tune.training.merging.parts import Parts
from vlm_tune.vlm import VLM

TASK = vt.Task(prompt="Which colour?", classes=("red", "green", "blue"))


def saved_base(family: str, folder: Path) -> Path:
    """Save a family's tiny model as transformers does."""
    tiny_model(family).save_pretrained(folder)
    return folder


def loaded(folder: Path) -> PreTrainedModel:
    """Read a folder as any user would, in float32."""
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


def random_adapter(base: Path, folder: Path, *, seed: int = 1, **settings: Any) -> Path:
    """Save an adapter whose every number is drawn, as the trainer saves one."""
    wrapped = get_peft_model(loaded(base), LoraConfig(**{"task_type": "CAUSAL_LM", "r": 2, **settings}))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if ".lora_" in name or ".modules_to_save." in name:
                noise = torch.randn(parameter.shape, generator=draw)
                # Magnitudes are lengths, and stay near what they are.
                parameter.mul_(1 + 0.1 * noise) if "magnitude" in name else parameter.add_(0.1 * noise)
    wrapped.save_pretrained(str(folder), save_embedding_layers=False)
    return folder


def parts(base: Path, *adapters: Path | tuple[Path, float]) -> Parts:
    """What is merged, without the cards that trained adapters have."""
    model = VLM(base)
    weighted = tuple(one if isinstance(one, tuple) else (one, 1.0) for one in adapters)
    return Parts(base=model, adapters=weighted, task=TASK, source=model.source, fingerprint="ab")


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of base and adapter in float32."""
    return PeftModel.from_pretrained(loaded(base), str(adapter)).merge_and_unload(safe_merge=True).state_dict()


def difference(folder: Path, reference: dict[str, torch.Tensor]) -> float:
    """The largest difference of any weight of a folder, read by transformers, from what it should be."""
    found = loaded(folder).state_dict()
    assert found.keys() == reference.keys()
    return max(float((found[name] - value).abs().max()) for name, value in reference.items() if value.numel())


def in_bfloat16(folder: Path) -> Path:
    """Round a base's weights on disk, as models are published."""
    for path in folder.glob("*.safetensors"):
        save_file({name: each.bfloat16() for name, each in load_file(path).items()}, path, metadata={"format": "pt"})
    return folder
