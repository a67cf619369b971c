"""Merging on disk, and its proof."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import vlm_tune as vt
from tests import models
from tests.drawn import drawn
from tests.processes import hear_interrupts
from vlm_tune import demo
from vlm_tune.errors import MergeError, StorageError
from vlm_tune.training.attach import fresh
from vlm_tune.training.merging import merge as merging
from vlm_tune.training.merging.merge import MergeReport, merge
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


def test_the_folder_is_a_whole_model(adapter: vt.Adapter, merged: Path) -> None:
    assert adapter.base.folder is not None
    for path in adapter.base.folder.iterdir():
        assert (merged / path.name).exists()
    examples = list(dataset())
    answers = {p.example_id: p.label for p in VLM(merged).predict(examples, demo.task())}
    assert answers == {p.example_id: p.label for p in adapter.predict(examples, demo.task())}


def test_a_finished_merge_is_not_done_again(adapter: vt.Adapter, merged: Path) -> None:
    before = (merged / "model.safetensors").stat().st_mtime_ns
    adapter.merge(merged)
    assert (merged / "model.safetensors").stat().st_mtime_ns == before


def test_show_frame_and_plot(merged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = MergeReport.load(merged)
    report.show()
    assert "ulp" in capsys.readouterr().out
    assert len(report.frame()) == len(report.answers)
    assert report.plot().axes


def test_a_merge_that_disagrees_raises_and_leaves_nothing(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = merging._Update
    # A merge that adds nothing must not pass for the adapter.
    monkeypatch.setattr(update, "exact_sum", lambda self, tensor: tensor.read().double())
    monkeypatch.setattr(merging, "_MAX_ULPS", float("inf"))
    with pytest.raises(MergeError, match="nats"):
        merge(adapter, tmp_path / "model", probe=list(dataset()), tolerance=1e-3)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_while_writing_is_found(adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copyfile = merging.shutil.copyfile

    def faulty(source: Path, target: Path) -> None:
        copyfile(source, target)
        if target.suffix == ".safetensors":
            data = bytearray(target.read_bytes())
            untouched = merging.stored_tensors(target.parent)[_untouched(adapter)]
            data[untouched.begin] ^= 1
            target.write_bytes(data)

    monkeypatch.setattr(merging.shutil, "copyfile", faulty)
    with pytest.raises(MergeError, match="untouched"):
        adapter.merge(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def _untouched(adapter: vt.Adapter) -> str:
    assert adapter.base.folder is not None
    return next(name for name in load_file(adapter.base.folder / "model.safetensors") if "norm" in name)


def test_a_disk_that_is_too_small_is_refused_before_writing(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(merging.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="are free"):
        adapter.merge(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


_CHILD = """
import sys
import vlm_tune as vt
print("ready", flush=True)
vt.Adapter.load(sys.argv[1]).merge(sys.argv[2])
"""


def test_a_disk_that_fills_while_merging_leaves_nothing(adapter: vt.Adapter, tmp_path: Path) -> None:
    assert adapter.base.folder is not None
    limit = (adapter.base.folder / "model.safetensors").stat().st_size // 2
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(adapter.path), str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        ),
    )
    assert done.returncode == 1
    assert "no space left" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_merge_stopped_half_way_leaves_no_model(adapter: vt.Adapter, tmp_path: Path, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(adapter.path), str(tmp_path / "model")],
        stderr=subprocess.DEVNULL,
        preexec_fn=hear_interrupts,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".model.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, how)
    process.wait()
    assert not (tmp_path / "model").exists()
    adapter.merge(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_adapter_of_layers_that_the_base_lacks_is_refused(
    adapter: vt.Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = merging._read_updates

    def renamed(folder: Path) -> dict[str, object]:
        return {f"model.elsewhere.{name}": update for name, update in real(folder).items()}

    monkeypatch.setattr(merging, "_read_updates", renamed)
    with pytest.raises(MergeError, match="not in the checkpoint"):
        adapter.merge(tmp_path / "model")


def test_a_renamed_checkpoint_is_merged_under_its_own_names(adapter: vt.Adapter) -> None:
    assert adapter.base.folder is not None
    tensors = merging.stored_tensors(adapter.base.folder)
    assert merging._renamed(tensors, adapter.base) == {name: name for name in tensors}


def test_rounding_is_measured_in_units_in_the_last_place() -> None:
    exact = torch.tensor([1.0 + 2**-8, -3.0, 0.0], dtype=torch.float64)
    assert merging._ulps(exact.bfloat16(), exact) == pytest.approx(0.5)
    assert merging._ulps(torch.tensor([1.0 + 2**-7, -3.0, 0.0]).bfloat16(), exact) == pytest.approx(0.5)
    assert merging._ulps(torch.tensor([1.0 + 2**-6, -3.0, 0.0]).bfloat16(), exact) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (vt.TrainConfig(r=2, use_dora=True), "with DoRA, which"),
        (
            vt.TrainConfig(r=2, regions=("language",), modules_to_save=("merger",)),
            "with modules trained in full, which",
        ),
        (
            vt.TrainConfig(r=2, regions=("language",), use_dora=True, modules_to_save=("merger",)),
            "with DoRA and modules trained in full, which",
        ),
    ],
)
def test_kinds_of_adapter_that_are_not_merged_are_named(
    config: vt.TrainConfig, kind: str, tiny_qwen3_vl: Path, tmp_path: Path
) -> None:
    resident = VLM(tiny_qwen3_vl).load()
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    with pytest.raises(MergeError, match=kind):
        merging._read_updates(tmp_path)


def test_rslora_is_merged_at_its_own_scale(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    resident, config = VLM(tiny_qwen3_vl).load(), vt.TrainConfig(r=4, lora_alpha=16, use_rslora=True)
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        wrapped.save_pretrained(str(tmp_path), save_embedding_layers=False)
    assert {update.scale for update in merging._read_updates(tmp_path).values()} == {8.0}
