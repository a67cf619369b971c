from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlm_tune.errors import ModelError
from vlm_tune.families import linear_names
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.vlm import VLM

TASK = Task(prompt="What is it?", classes=("crack", "dent", "scratch"))


def test_a_handle_is_light(tiny_qwen3_vl: Path) -> None:
    code = "import sys; from vlm_tune.vlm import VLM; VLM(sys.argv[1]); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, tiny_qwen3_vl], check=False).returncode == 0


def test_name_is_the_last_part_of_id_or_path(tiny_qwen3_vl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLM("Qwen/Qwen3-VL-8B-Instruct").name == "Qwen3-VL-8B-Instruct"
    assert VLM(tiny_qwen3_vl).name == "tiny-qwen3-vl"
    assert VLM(tiny_qwen3_vl, name="base").name == "base"
    monkeypatch.chdir(tiny_qwen3_vl)
    assert VLM("./").name == "tiny-qwen3-vl"


def test_of_several_processes_each_asks_its_own_copy(tiny_qwen3_vl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert VLM(tiny_qwen3_vl).asked_by == "each"
    assert VLM(tiny_qwen3_vl, device="cuda:1").asked_by == "one"
    monkeypatch.setattr("vlm_tune.vlm.model.too_large", lambda base: True)
    assert VLM(tiny_qwen3_vl).asked_by == "all"


def test_predicts_every_example(tiny_vlm: Path, noise_png: Callable[..., bytes]) -> None:
    examples = [Example(id=str(seed), image=noise_png(40, 60, seed), label="dent") for seed in range(3)]
    vlm = VLM(tiny_vlm, device="cpu")
    found = list(vlm.predict(examples, TASK))
    assert sorted(prediction.example_id for prediction in found) == ["0", "1", "2"]
    assert all(prediction.label in TASK.classes for prediction in found)
    assert {prediction.model_version for prediction in found} == {vlm.source}


def test_fingerprint_tells_models_types_and_ways_of_answering_apart(
    tiny_qwen3_vl: Path, tiny_lfm2_vl: Path, tmp_path: Path
) -> None:
    prints = [
        VLM(tiny_qwen3_vl, device="cpu").fingerprint,
        VLM(tiny_lfm2_vl, device="cpu").fingerprint,
        VLM(tiny_qwen3_vl, device="cpu", dtype="bfloat16").fingerprint,
        VLM(tiny_qwen3_vl, device="cpu", answer="generate").fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    moved = shutil.copytree(tiny_qwen3_vl, tmp_path / "elsewhere")
    assert VLM(moved, device="cpu", name="moved", batch_size=3).fingerprint == prints[0]


def test_skeleton_has_the_names_and_no_weights(tiny_vlm: Path) -> None:
    vlm = VLM(tiny_vlm, device="cpu")
    skeleton = vlm.skeleton()
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert linear_names(skeleton) == linear_names(vlm.load().model)


def test_a_batch_has_at_least_one_photo(tiny_qwen3_vl: Path) -> None:
    with pytest.raises(ModelError, match="at least 1"):
        VLM(tiny_qwen3_vl, batch_size=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"answer": "guess"}, "answer must be one of score, score_per_token, generate, got 'guess'"),
        ({"dtype": "float8"}, "dtype must be one of auto, float32, bfloat16, float16, got 'float8'"),
    ],
)
def test_settings_that_are_not_known_are_named(tiny_vlm: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        VLM(tiny_vlm, **settings)
