"""What can go wrong while merging: each is told clearly, and leaves nothing behind."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.processes import Child
from tests.training.merging.made import difference, loaded, merged_by_peft, parts, random_adapter
from vlm_tune.errors import MergeError, ModelError, StorageError
from vlm_tune.training.merging import merge as merging
from vlm_tune.training.merging import writing
from vlm_tune.training.merging.merge import MergeReport, merge

ATTENTION = r"model\.language_model\.layers\.\d+\.self_attn\.[qkvo]_proj"


@pytest.fixture
def base(tiny_qwen3_vl: Path, tmp_path: Path) -> Path:
    """A base in several weight files."""
    folder = tmp_path / "base"
    loaded(tiny_qwen3_vl).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    return random_adapter(base, tmp_path / "adapter", target_modules=ATTENTION)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out" / "merged"


def refused(base: Path, adapter: Path, target: Path, reason: str) -> None:
    with pytest.raises(MergeError, match=reason):
        merge(parts(base, adapter), target, probe=[])
    assert not target.parent.exists()


def shard_of(base: Path, end: str) -> tuple[Path, str]:
    """The weight file with the tensor whose name ends so, and its name."""
    index = json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    name = next(name for name in index if name.endswith(end))
    return base / index[name], name


def test_weights_in_several_files_are_merged(base: Path, adapter: Path, target: Path) -> None:
    report = merge(parts(base, adapter), target, probe=[])
    assert {path.name for path in target.iterdir()} == {
        *(path.name for path in base.iterdir()),
        "merge_report.json",
        "README.md",
    }
    assert difference(target, merged_by_peft(base, adapter)) < 1e-6
    assert report.tensors_changed == 12
    # Another version's report says nothing about this one's proof: the merge is done again.
    (target / "merge_report.json").write_text('{"tensors_changed": 12}')
    assert merge(parts(base, adapter), target, probe=[]).untouched_sha256 == report.untouched_sha256
    assert MergeReport.load(target).tensors_changed == 12
    stored = [tensor for path in base.glob("*.safetensors") for tensor in load_file(path).values()]
    assert report.size_bytes == sum(tensor.nbytes for tensor in stored)
    assert report.tensors_untouched == len(stored) - 12


@pytest.mark.parametrize("fault", ["gone", "cut off"])
def test_a_finished_merge_that_lost_weights_since_is_done_again(
    fault: str, base: Path, adapter: Path, target: Path
) -> None:
    report = merge(parts(base, adapter), target, probe=[])
    shard = next(iter(sorted(target.glob("*.safetensors"))))
    if fault == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    again = merge(parts(base, adapter), target, probe=[])
    assert again.untouched_sha256 == report.untouched_sha256
    assert difference(target, merged_by_peft(base, adapter)) < 1e-6


def test_a_missing_weight_file_is_named(base: Path, adapter: Path, target: Path) -> None:
    shard, _ = shard_of(base, "1.mlp.up_proj.weight")
    shard.unlink()
    refused(base, adapter, target, f"1 of . weight files of .* are missing, first {shard.name}; download")


@pytest.mark.parametrize("keep", [0.9, 0.0])
def test_a_weight_file_that_is_cut_off_is_named(base: Path, adapter: Path, target: Path, keep: float) -> None:
    shard, _ = shard_of(base, "1.mlp.up_proj.weight")
    whole = parts(base, adapter)
    os.truncate(shard, int(keep * shard.stat().st_size))
    with pytest.raises((MergeError, ModelError), match=shard.name if keep else "cannot read|cut off"):
        merge(parts(base, adapter), target, probe=[])
    with pytest.raises((MergeError, ModelError), match=r"not those that the adapter was trained on|cannot read"):
        merge(whole, target, probe=[])
    assert not target.parent.exists()


@pytest.mark.parametrize("end", ["0.self_attn.q_proj.weight", "0.mlp.up_proj.weight"])
def test_a_tensor_of_another_shape_is_named(end: str, base: Path, adapter: Path, target: Path) -> None:
    shard, name = shard_of(base, end)
    save_file({**load_file(shard), name: torch.ones(3, 5)}, shard, metadata={"format": "pt"})
    refused(base, adapter, target, rf"{name} with the shape \(3, 5\), and the model's configuration says")


def test_an_index_that_is_broken_is_named(base: Path, adapter: Path, target: Path) -> None:
    whole = parts(base, adapter)
    (base / "model.safetensors.index.json").write_text("{}")
    refused(base, adapter, target, r"index\.json is no index of weight files")
    (base / "model.safetensors.index.json").unlink()
    with pytest.raises(MergeError, match=r"neither model\.safetensors nor"):
        merge(whole, target, probe=[])


def test_another_base_and_weights_that_changed_since_are_refused(
    base: Path, adapter: Path, target: Path, tiny_lfm2_vl: Path
) -> None:
    what = parts(base, adapter)
    shard, name = shard_of(base, "1.mlp.up_proj.weight")
    tensors = load_file(shard)
    tensors[name][0, 0] += 1
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(MergeError, match=rf"not those that the adapter was trained on.*it was {what.source}"):
        merge(what, target, probe=[])
    refused(tiny_lfm2_vl, adapter, target, "adapted weights are not in the checkpoint.*the base the adapter was")


def test_a_base_that_moved_is_told(base: Path, adapter: Path, target: Path, tmp_path: Path) -> None:
    what = parts(base, adapter)
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(MergeError, match=r"base is not there any more; if it moved, vlm_tune\.Adapter\.load"):
        merge(what, target, probe=[])
    assert not target.parent.exists()
    merge(parts(tmp_path / "elsewhere", adapter), target, probe=[])


def test_a_layer_that_shares_its_weights_is_refused(base: Path, tmp_path: Path, target: Path) -> None:
    embeddings = "model.language_model.embed_tokens"
    with pytest.warns(UserWarning, match="ensure_weight_tying"):
        adapter = random_adapter(base, tmp_path / "tied", target_modules=ATTENTION, modules_to_save=[embeddings])
    refused(base, adapter, target, rf"{embeddings}\.weight is the same weight as lm_head\.weight, which the adapter")


def test_base_and_adapter_are_never_overwritten(base: Path, adapter: Path) -> None:
    for folder in (base, adapter):
        before = sorted(path.name for path in folder.iterdir())
        with pytest.raises(MergeError, match="is what is merged from, and would be gone"):
            merge(parts(base, adapter), folder / ".." / folder.name, probe=[])
        assert sorted(path.name for path in folder.iterdir()) == before


def test_a_target_that_cannot_be_written_is_told(base: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "closed").mkdir(mode=0o555)
    # The superuser may write anywhere but where the kernel shows what it has.
    closed = tmp_path / "closed" if os.geteuid() else Path("/sys")
    for folder in (tmp_path / "file", closed):
        with pytest.raises(StorageError, match="cannot write"):
            merge(parts(base, adapter), folder / "merged", probe=[])


def test_a_disk_that_fills_while_merging_leaves_nothing(base: Path, adapter: Path, target: Path) -> None:
    sizes = sorted(path.stat().st_size for path in base.glob("*.safetensors"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((sizes[0] + sizes[-1]) // 2, before[1]))
    try:
        with pytest.raises(StorageError, match=r"no space left to write .*nothing was left behind"):
            merge(parts(base, adapter), target, probe=[])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(target.parent.iterdir()) == []


def test_a_disk_that_is_full_half_way_ends_all_threads(
    base: Path, adapter: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, done = writing._change, []

    def failing(*args: Any) -> None:
        done.append(args)
        if len(done) >= 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        change(*args)

    monkeypatch.setattr(writing, "_change", failing)
    with pytest.raises(StorageError, match="no space left"):
        merge(parts(base, adapter), target, probe=[])
    assert list(target.parent.iterdir()) == []


def test_a_disk_that_is_too_small_is_refused_before_writing(
    base: Path, adapter: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000, "total": 10**12})
    monkeypatch.setattr(merging.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match="are free"):
        merge(parts(base, adapter), target, probe=[])
    assert not target.parent.exists()


_CHILD = """
import pickle, sys
from vlm_tune.training.merging.merge import merge
from vlm_tune.training.merging.parts import Parts
from vlm_tune.vlm import VLM
base, target, *rest = sys.argv[1:]
model = VLM(base)
with open(rest[0], "rb") as file:
    merge(Parts(base=model, source=model.source, **pickle.load(file)), target, probe=[])
"""


def test_a_merge_killed_half_way_leaves_no_model(base: Path, adapter: Path, target: Path, tmp_path: Path) -> None:
    what = parts(base, adapter)
    others = {"adapters": what.adapters, "task": what.task, "fingerprint": what.fingerprint}
    (tmp_path / "others").write_bytes(pickle.dumps(others))
    target.parent.mkdir()
    process = Child("-c", _CHILD, base, target, tmp_path / "others")
    while not list(target.parent.glob(".merged.*")) and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    status, _, said = process.wait()
    assert status == -signal.SIGKILL, said
    assert not target.exists() and len(list(target.parent.glob(".merged.*.part"))) == 1
    merge(what, target, probe=[])
    assert [path.name for path in target.parent.iterdir()] == ["merged"]


def test_ctrl_c_leaves_nothing(base: Path, adapter: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change, done = writing._change, []

    def interrupting(*args: Any) -> None:
        done.append(args)
        if len(done) == 4:
            signal.raise_signal(signal.SIGINT)
        change(*args)

    monkeypatch.setattr(writing, "_change", interrupting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            merge(parts(base, adapter), target, probe=[])
    finally:
        signal.signal(signal.SIGINT, before)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("what", ["a tensor", "a changed tensor", "a header", "another file"])
def test_a_byte_that_is_not_what_was_written_is_found(
    what: str, base: Path, adapter: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, checkpoint = merging.write, merging.open_checkpoint(base)
    tensor = checkpoint.tensors[
        {"a tensor": "model.visual.pos_embed.weight"}.get(what, "model.language_model.layers.1.self_attn.v_proj.weight")
    ]
    file, at, reason = {
        "a tensor": (tensor.file.name, tensor.end - 1, "pos_embed.weight should be untouched"),
        "a changed tensor": (tensor.file.name, tensor.begin + 7, "v_proj.weight has a stored weight .* ulp"),
        "a header": (tensor.file.name, 40, "the header of model-.* should be untouched"),
        "another file": ("config.json", 3, r"config\.json should be untouched"),
    }[what]

    def faulty(*args: object, folder: Path | None = None, **kwargs: object) -> object:
        done = write(*args, **kwargs)
        path = Path(str(args[2])) / file
        data = bytearray(path.read_bytes())
        data[at] ^= 0x40
        path.write_bytes(data)
        return done

    monkeypatch.setattr(merging, "write", faulty)
    with pytest.raises(MergeError, match=reason):
        merge(parts(base, adapter), target, probe=[])
    assert list(target.parent.iterdir()) == []


def test_a_sum_that_its_type_does_not_have_is_refused(base: Path, tmp_path: Path, target: Path) -> None:
    for path in base.glob("*.safetensors"):
        save_file({name: each.half() for name, each in load_file(path).items()}, path, metadata={"format": "pt"})
    adapter = random_adapter(base, tmp_path / "large", target_modules=ATTENTION, lora_alpha=10**7)
    with pytest.raises(MergeError, match="would get values that F16 does not have"):
        merge(parts(base, adapter), target, probe=[])
    assert list(target.parent.iterdir()) == []


def test_what_transformers_would_not_read_is_left_out_and_told(
    base: Path, adapter: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"old": torch.ones(2)}, base / "consolidated.safetensors")
    (base / "pytorch_model.bin").write_bytes(b"pickle")
    (base / "README.md").write_text("About the base.")
    (base / "additional_chat_templates").mkdir()
    (base / "README.md").write_text("About the base.")
    (base / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    merge(parts(base, adapter), target, probe=[])
    assert "not copied: consolidated.safetensors, pytorch_model.bin" in capsys.readouterr().err
    assert not {"consolidated.safetensors", "pytorch_model.bin"} & {path.name for path in target.iterdir()}
    assert "About the base" not in (target / "README.md").read_text()
    assert (target / "additional_chat_templates" / "tools.jinja").read_text() == "{{ tools }}"


def test_a_single_file_goes_before_an_index(tiny_qwen3_vl: Path, base: Path, adapter: Path, target: Path) -> None:
    shutil.copyfile(tiny_qwen3_vl / "model.safetensors", base / "model.safetensors")
    merge(parts(base, adapter), target, probe=[])
    assert [path.name for path in target.glob("*.safetensors*")] == ["model.safetensors"]
    assert MergeReport.load(target).tensors_changed == 12
    assert difference(target, merged_by_peft(base, adapter)) < 1e-6


def test_a_base_that_is_quantised_on_disk_is_refused(base: Path, adapter: Path, target: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    refused(base, adapter, target, "stored in .*, which cannot take an adapter's update; train on the unquantised")
