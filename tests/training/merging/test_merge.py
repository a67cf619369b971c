"""Merging on disk, and its proof."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlm_tune as vt
from tests import models
from tests.drawn import drawn
from vlm_tune import demo
from vlm_tune.errors import AdapterError, MergeError
from vlm_tune.training.merging import updates
from vlm_tune.training.merging.merge import MergeReport
from vlm_tune.vlm import VLM


def dataset(count: int = 12) -> vt.Dataset:
    photos = [photo for photo in drawn().photos if photo.split == "train"]
    photos = photos[:: len(photos) // count][:count]
    examples = [vt.Example(id=p.id, image=p.jpeg, label=p.label) for p in photos]
    return vt.Dataset(examples, task=demo.task())


def trained(folder: Path, base: Path) -> vt.Adapter:
    config = vt.TrainConfig(
        r=4, lora_alpha=16, learning_rate=0.02, epochs=1, regions=("vision", "projector", "language")
    )
    return vt.LoRATrainer(VLM(base), config).fit(dataset(), run_dir=folder)


@pytest.fixture(scope="module", params=["qwen3_vl", "lfm2_vl"])
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> vt.Adapter:
    root = tmp_path_factory.mktemp(request.param)
    build = models.tiny_qwen3_vl if request.param == "qwen3_vl" else models.tiny_lfm2_vl
    base = build(root / "base")
    for path in base.glob("*.safetensors"):
        save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    return trained(root, base)


@pytest.fixture(scope="module")
def merged(adapter: vt.Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merged") / "model"
    adapter.merge(path)
    return path


def test_weights_are_the_exact_sum_rounded_once(adapter: vt.Adapter, merged: Path) -> None:
    assert adapter.base.folder is not None
    base, after = (
        load_file(adapter.base.folder / "model.safetensors"),
        load_file(merged / "model.safetensors"),
    )
    lora = load_file(adapter.path / "adapter_model.safetensors")
    changed = 0
    for name, value in base.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{key}.lora_A.weight" in lora:
            delta = lora[f"{key}.lora_B.weight"].double() @ lora[f"{key}.lora_A.weight"].double()
            value = (value.double() + adapter.config.scale * delta).to(value.dtype)
            changed += 1
        assert torch.equal(after[name], value), name
    assert changed == len(lora) // 2 == MergeReport.load(merged).tensors_changed


def test_the_report_proves_it(adapter: vt.Adapter, merged: Path) -> None:
    report = MergeReport.load(merged)
    assert report.max_ulps <= 0.501
    assert 0.9 < report.retained_delta < 1.1
    assert report.agreement.value == 1.0
    assert report.agreement.n >= 6
    assert sum(a.merged_difference for a in report.answers) < sum(a.base_difference for a in report.answers)
    assert sum(a.merged_difference for a in report.answers) < sum(a.merged_base_difference for a in report.answers)
    assert report.write_s > 0
    assert report.prove_s > 0
    assert report.write_s + report.prove_s <= report.seconds
    assert report.task == adapter.task
    assert report.least_retained_delta <= report.retained_delta
    assert report.least_retained_module in report.changed


def test_the_folder_is_a_whole_model(adapter: vt.Adapter, merged: Path) -> None:
    assert adapter.base.folder is not None
    for path in adapter.base.folder.iterdir():
        assert (merged / path.name).exists()
    card = (merged / "README.md").read_text()
    assert "same answer as the adapter | 1.000 [" in card and adapter.fingerprint in card
    examples = list(dataset())
    answers = {p.example_id: p.label for p in VLM(merged).predict(examples, demo.task())}
    assert answers == {p.example_id: p.label for p in adapter.predict(examples, demo.task())}


def test_a_finished_merge_is_not_done_again(adapter: vt.Adapter, merged: Path) -> None:
    before = (merged / "model.safetensors").stat().st_mtime_ns
    adapter.merge(merged)
    assert (merged / "model.safetensors").stat().st_mtime_ns == before


def test_an_adapter_whose_base_moved_says_how_to_find_it(adapter: vt.Adapter, tmp_path: Path) -> None:
    shutil.copytree(adapter.path, tmp_path / "adapter")
    card = tmp_path / "adapter" / "vlm_tune.json"
    card.write_text(card.read_text().replace(str(adapter.base.folder), str(tmp_path / "gone")))
    with pytest.raises(AdapterError, match=r"gone, which is not there any more; if it moved.*base=vlm_tune\.VLM"):
        vt.Adapter.load(tmp_path / "adapter")
    assert adapter.base.folder is not None
    moved = vt.Adapter.load(tmp_path / "adapter", base=VLM(adapter.base.folder))
    assert moved.card.base.source == adapter.base.source


def test_show_frame_and_plot(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = MergeReport.load(merged)
    report.show()
    assert "ulp" in capsys.readouterr().out
    assert len(report.frame()) == len(report.answers)
    assert report.plot().axes


def test_a_merge_that_disagrees_raises_and_leaves_nothing(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A merge that adds something else must not pass for the adapter: writing and reading back have the same fault.
    monkeypatch.setattr(updates, "scale", lambda *args: 1e-3)
    with pytest.raises(MergeError, match="nats"):
        adapter.merge(tmp_path / "model", probe=list(dataset()))
    assert list(tmp_path.iterdir()) == []


def test_a_merge_that_changes_nothing_is_refused_without_photos_too(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "scale", lambda *args: 1e-9)
    with pytest.raises(MergeError, match="every weight rounds back to the base's"):
        adapter.merge(tmp_path / "model", probe=[])
    assert list(tmp_path.iterdir()) == []


def test_an_update_that_is_mostly_lost_to_rounding_is_told(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(updates, "scale", lambda *args: 0.01)
    adapter.merge(tmp_path / "model", probe=[])
    assert "% of the adapter's update survives the rounding" in capsys.readouterr().err
    assert MergeReport.load(tmp_path / "model").retained_delta < 0.9


def test_an_adapter_that_was_loaded_needs_photos_or_says_that_it_has_none(adapter: vt.Adapter, tmp_path: Path) -> None:
    loaded = vt.Adapter.load(adapter.path)
    with pytest.raises(MergeError, match=r"no photos to compare answers on.*probe=data.*probe=\[\]"):
        loaded.merge(tmp_path / "model")
    loaded.merge(tmp_path / "model", probe=[])
    assert MergeReport.load(tmp_path / "model").answers == ()
    # Weights alone are not enough for who asks for more, and more is enough for who asks for less.
    loaded.merge(tmp_path / "model", probe=list(dataset())[:2])
    assert len(MergeReport.load(tmp_path / "model").answers) == 2
    loaded.merge(tmp_path / "model")
    assert len(MergeReport.load(tmp_path / "model").answers) == 2
