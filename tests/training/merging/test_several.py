"""Several adapters in one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

import vlm_tune as vt
from tests.training.merging.made import difference, in_bfloat16, loaded, parts, random_adapter
from vlm_tune.errors import MergeError
from vlm_tune.training.merging.merge import MergeReport, merge

ATTENTION = r"model\.language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"
VISION = r"model\.visual\.blocks\.\d+\.attn\.(qkv|proj)"


@pytest.fixture
def both(bold_qwen3_vl: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Adapters of other ranks and scales, that share some layers."""
    first = random_adapter(bold_qwen3_vl, tmp_path / "first", target_modules=ATTENTION, lora_alpha=1)
    other = {"r": 3, "use_rslora": True, "lora_alpha": 2, "target_modules": f"{ATTENTION}|{VISION}"}
    second = random_adapter(bold_qwen3_vl, tmp_path / "second", seed=2, **other)
    return first, second


def test_the_sum_is_pefts_concatenation(both: tuple[Path, Path], bold_qwen3_vl: Path, tmp_path: Path) -> None:
    model = PeftModel.from_pretrained(loaded(bold_qwen3_vl), str(both[0]), adapter_name="first")
    model.load_adapter(str(both[1]), adapter_name="second")
    model.add_weighted_adapter(["first", "second"], [0.5, 1.25], "sum", combination_type="cat")
    model.set_adapter("sum")
    reference = model.merge_and_unload(safe_merge=True).state_dict()
    what = parts(bold_qwen3_vl, (both[0], 0.5), (both[1], 1.25))
    report = merge(what, tmp_path / "merged", probe=[])
    assert difference(tmp_path / "merged", reference) < 1e-6
    assert report.weights == (0.5, 1.25)


def test_the_answers_are_those_of_all_adapters_at_their_weights(
    both: tuple[Path, Path], bold_qwen3_vl: Path, tmp_path: Path, colours: vt.Dataset
) -> None:
    what = replace(parts(bold_qwen3_vl, (both[0], 1.0), (both[1], -0.5)), task=colours.task)
    report = merge(what, tmp_path / "merged", probe=colours.examples[:6])
    assert report.agreement.value == 1
    assert report.max_score_difference < 1e-3
    assert max(answer.base_difference for answer in report.answers) > 0.1


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "DoRA magnitudes"),
        ({"modules_to_save": ["model.visual.merger"]}, "modules trained in full"),
    ],
)
def test_only_low_rank_updates_are_weighted(
    settings: dict[str, Any], reason: str, both: tuple[Path, Path], bold_qwen3_vl: Path, tmp_path: Path
) -> None:
    other = random_adapter(bold_qwen3_vl, tmp_path / "other", target_modules=ATTENTION, **settings)
    for adapters in ([(both[0], 1.0), (other, 1.0)], [(other, 0.5)]):
        with pytest.raises(MergeError, match=f"other has {reason}, which cannot be weighted"):
            merge(parts(bold_qwen3_vl, *adapters), tmp_path / "merged", probe=[])


def test_a_base_in_bfloat16_takes_the_sum_with_one_rounding(
    both: tuple[Path, Path], bold_qwen3_vl: Path, tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    for path in bold_qwen3_vl.iterdir():
        (tmp_path / "base" / path.name).write_bytes(path.read_bytes())
    base = in_bfloat16(tmp_path / "base")
    report = merge(parts(base, (both[0], 0.5), (both[1], 0.5)), tmp_path / "merged", probe=[])
    assert report.max_ulps <= 0.501
    assert MergeReport.load(tmp_path / "merged") == report
    assert torch.equal(loaded(tmp_path / "merged").lm_head.weight, loaded(base).lm_head.weight)
