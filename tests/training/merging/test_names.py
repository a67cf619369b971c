"""The way of a name from adapter to memory to disk, for every architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.families.tiny import TINY
from tests.training.merging.made import difference, loaded, merged_by_peft, parts, random_adapter, saved_base
from vlm_tune.families import FAMILIES, family_in
from vlm_tune.training.merging.merge import merge

PROJECTORS = {"gemma3": ["model.multi_modal_projector"], "internvl": ["model.multi_modal_projector"]}
"""One that is a bare matrix, and one with norm and biases."""


def test_every_registered_family_is_here() -> None:
    assert set(FAMILIES) <= set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_a_merged_model_is_what_peft_makes_of_it(name: str, tmp_path: Path) -> None:
    base = saved_base(name, tmp_path / "base")
    family = family_in(loaded(base))
    in_full = PROJECTORS.get(name)
    regions = [region for region in family.regions if region != "projector" or in_full is None]
    pattern = family.target_modules(regions, family.kinds)
    adapter = random_adapter(base, tmp_path / "adapter", target_modules=pattern, modules_to_save=in_full)
    report = merge(parts(base, adapter), tmp_path / "merged", probe=[])

    reference = merged_by_peft(base, adapter)
    assert difference(tmp_path / "merged", reference) < 1e-6
    # And it is not by chance that it is no other: all that the adapter has moved is far from the base.
    before = loaded(base).state_dict()
    moved = [key for key, value in before.items() if float((value - reference[key]).abs().max()) > 1e-3]
    assert {key.rpartition(".")[0] for key in moved} == set(report.changed)
    assert len(moved) == report.tensors_changed > 0


@pytest.mark.parametrize(
    ("family", "here", "there"),
    [
        ("lfm2_vl", "model.vision_tower.", "model.vision_tower.vision_model."),
        ("qwen3_vl", "model.language_model.", "model.language_model.model."),
        ("qwen2_5_vl", "visual.", "visual."),
    ],
)
def test_older_names_on_disk_are_kept(family: str, here: str, there: str, tmp_path: Path) -> None:
    base = saved_base(family, tmp_path / "base")
    stored = load_file(base / "model.safetensors")
    renamed = {key.replace(here, there) if key.startswith(here) else key: value for key, value in stored.items()}
    save_file(renamed, base / "model.safetensors", metadata={"format": "pt"})
    known = family_in(loaded(base))
    pattern = known.target_modules(known.regions, ("attention",))
    adapter = random_adapter(base, tmp_path / "adapter", target_modules=pattern)
    merge(parts(base, adapter), tmp_path / "merged", probe=[])
    assert load_file(tmp_path / "merged" / "model.safetensors").keys() == renamed.keys()
    assert difference(tmp_path / "merged", merged_by_peft(base, adapter)) < 1e-6
    assert not all(
        torch.equal(value, loaded(base).state_dict()[key])
        for key, value in loaded(tmp_path / "merged").state_dict().items()
    )
