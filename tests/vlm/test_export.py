"""Exports: the folder is a whole quantised model, whoever reads it, or it is not there."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import vlm_tune as vt
from tests.processes import run
from vlm_tune import _files, _imports
from vlm_tune.errors import AdapterError, MissingExtraError, ModelError, StorageError
from vlm_tune.vlm import VLM, card, resident
from vlm_tune.vlm.export import EXPORT_FILE, Export, write_export_card
from vlm_tune.vlm.quantization import Quantization, weight_bytes

TASK = vt.Task(prompt="What is it?", classes=("crack", "dent", "scratch"))


@pytest.fixture(scope="module")
def nf4(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return VLM(tiny_qwen3_vl, device="cpu").export(tmp_path_factory.mktemp("exports") / "nf4", quantization="nf4")


@pytest.fixture(scope="module")
def int8(tiny_lfm2_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return VLM(tiny_lfm2_vl, device="cpu").export(tmp_path_factory.mktemp("exports") / "int8", quantization="int8")


@pytest.fixture(params=["int8", "nf4"])
def exported(request: pytest.FixtureRequest) -> VLM:
    """A tiny LFM2-VL in eight bits and a tiny Qwen3-VL in four."""
    model: VLM = request.getfixturevalue(request.param)
    return model


@pytest.fixture
def base(exported: VLM, tiny_qwen3_vl: Path, tiny_lfm2_vl: Path) -> VLM:
    """What it was made of."""
    return VLM(tiny_qwen3_vl if exported.stored_quantization == "nf4" else tiny_lfm2_vl, device="cpu")


@pytest.fixture
def examples(noise_png: Callable[..., bytes]) -> list[vt.Example]:
    return [vt.Example(id=str(seed), image=noise_png(40, 60, seed), label="dent") for seed in range(3)]


def scores(model: VLM, examples: list[vt.Example]) -> list[float]:
    found = {one.example_id: one.scores for one in model.predict(examples, TASK)}
    return [value for example in examples for value in (found[example.id] or {}).values()]


def test_it_answers_as_the_model_quantised_as_it_is_read(base: VLM, exported: VLM, examples: list[vt.Example]) -> None:
    how: Quantization = "nf4" if exported.stored_quantization == "nf4" else "int8"
    assert exported.quantization is None
    found = scores(exported, examples)
    # Weights that are read lie otherwise in memory than those just quantised, and are summed in another order.
    assert found == pytest.approx(scores(VLM(base.model, device="cpu", quantization=how), examples), abs=1e-5)
    assert found != pytest.approx(scores(base, examples), abs=1e-5)


_STOCK = """
import json, sys
from transformers import AutoModelForImageTextToText, AutoProcessor

for folder in sys.argv[1:]:
    model, found = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert AutoProcessor.from_pretrained(folder).chat_template
    names = (name for name, _ in model.named_modules() if "language_model" in name)
    kind = type(model.get_submodule(next(name for name in names if name.endswith("self_attn.q_proj"))))
    print(json.dumps([kind.__name__, model.is_quantized, sum(map(len, found.values()))]))
assert "vlm_tune" not in sys.modules
"""


def test_transformers_alone_reads_it(nf4: VLM, int8: VLM) -> None:
    done = run("-c", _STOCK, nf4.model, int8.model)
    assert done.status == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert found == [["Linear4bit", True, 0], ["Linear8bitLt", True, 0]]


def test_it_is_another_model_and_knows_what_of(base: VLM, exported: VLM) -> None:
    assert exported.source != base.source
    assert exported.fingerprint != base.fingerprint
    assert exported.folder is not None
    record = Export.load(exported.folder)
    assert (record.source, record.base_model) == (base.source, None)
    assert record.name == exported.name == f"{base.name}-{record.quantization}"
    loaded = exported.load()
    assert (loaded.quantization, loaded.exported) == (record.quantization, True)
    assert record.weight_bytes == weight_bytes(loaded.model)
    assert base.load().quantization is None
    assert record.weight_bytes < weight_bytes(base.load().model)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_that_is_not_quantised_is_in_the_type_asked_for(exported: VLM, dtype: vt.vlm.model.DType) -> None:
    loaded = VLM(exported.model, device="cpu", dtype=dtype).load()
    floats = {parameter.dtype for parameter in loaded.model.parameters() if parameter.is_floating_point()}
    assert floats == {loaded.dtype} == {getattr(torch, dtype)}
    computing = {getattr(module, "compute_dtype", loaded.dtype) for module in loaded.model.modules()}
    assert computing == {loaded.dtype}


def test_what_is_not_quantised_is_stored_as_it_was_unless_asked(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    VLM(tiny_qwen3_vl, device="cpu", dtype="bfloat16").export(tmp_path / "half", quantization="int8")
    assert Export.load(tmp_path / "half").dtype == "bfloat16"
    assert (tmp_path / "half/model.safetensors").stat().st_size < 0.6 * (
        VLM(tiny_qwen3_vl, device="cpu").export(tmp_path / "whole", quantization="int8").folder or tmp_path
    ).joinpath("model.safetensors").stat().st_size


def test_its_handle_answers_as_the_models_did(tiny_qwen3_vl: Path, nf4: VLM, tmp_path: Path) -> None:
    given = VLM(tiny_qwen3_vl, device="cpu", dtype="float32", answer="generate", batch_size=3, quantization="int8")
    found = given.export(tmp_path / "model", quantization="nf4")
    assert (found.device, found.dtype, found.answer, found.batch_size) == ("cpu", "float32", "generate", 3)
    assert (found.name, found.source) == (nf4.name, nf4.source)


def test_the_same_export_is_not_made_again(nf4: VLM, tiny_qwen3_vl: Path) -> None:
    assert nf4.folder is not None
    before = (nf4.folder / EXPORT_FILE).stat()
    again = VLM(tiny_qwen3_vl, device="cpu").export(nf4.folder, quantization="nf4")
    assert again.source == nf4.source
    assert (nf4.folder / EXPORT_FILE).stat() == before


def test_a_folder_that_holds_something_else_is_left_alone(nf4: VLM, tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    assert nf4.folder is not None
    model = VLM(tiny_qwen3_vl, device="cpu")
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tiny_qwen3_vl, nf4.folder):
        with pytest.raises(StorageError, match="is not this export; choose another folder"):
            model.export(folder, quantization="int8")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    assert model.export(tmp_path / "empty", quantization="int8").stored_quantization == "int8"


def test_an_export_is_neither_quantised_again_nor_trained_on(nf4: VLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is in nf4 already; export the unquantised model"):
        nf4.export(tmp_path / "model", quantization="int8")
    with pytest.raises(ModelError, match=r"quantised already \(nf4\)"):
        VLM(nf4.model, device="cpu", quantization="int8").load()
    with pytest.raises(AdapterError, match="stored in nf4, so an adapter on them could never be merged"):
        vt.LoRATrainer(nf4)._check_parts()
    with pytest.raises(AdapterError, match="stored in nf4"), nf4.load().adapted(lambda model: model):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_format_is_refused(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'int8' or 'nf4', got 'int4'"):
        VLM(tiny_qwen3_vl).export(tmp_path / "model", quantization="int4")  # type: ignore[arg-type]


def test_a_missing_package_is_named_for_export_and_for_what_was_exported(
    nf4: VLM, tiny_qwen3_vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    nf4.unload()
    monkeypatch.setattr(_imports, "import_module", missing)
    for act in (nf4.load, lambda: VLM(tiny_qwen3_vl).export(tmp_path / "model", quantization="int8")):
        with pytest.raises(MissingExtraError, match=r'pip install "vlm-tune\[quant\]"'):
            act()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def short_of_disk() -> Iterator[None]:
    """No file may grow beyond 50 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("short_of_disk")
def test_a_disk_that_fills_leaves_nothing(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*model|no space left to write .*model"):
        VLM(tiny_qwen3_vl, device="cpu").export(tmp_path / "model", quantization="int8")
    assert list(tmp_path.iterdir()) == []
    assert resident._held is None


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    tiny_qwen3_vl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=1000))
    with pytest.raises(StorageError, match=r"needs 0.0 GB and 0.0 GB are free"):
        VLM(tiny_qwen3_vl, device="cpu").export(tmp_path / "model", quantization="int8")
    assert list(tmp_path.iterdir()) == []


def test_no_weights_stay_in_memory(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    VLM(tiny_qwen3_vl, device="cpu").export(tmp_path / "model", quantization="int8")
    assert resident._held is None


def test_the_card_says_what_it_is(exported: VLM) -> None:
    assert exported.folder is not None
    text = (exported.folder / card.CARD_FILE).read_text(encoding="utf-8")
    bits = {"int8": "8-bit", "nf4": "4-bit"}[str(exported.stored_quantization)]
    assert f"- {bits}\n" in text.split("---")[1]
    assert "pipeline_tag: image-text-to-text" in text
    assert "base_model" not in text
    assert f"# {exported.name}" in text
    assert "Nothing yet" in text
    assert "lm_head; embeddings" in text
    assert str(exported.folder) not in text


def test_the_card_takes_what_was_measured_and_the_answers_stay_the_same(nf4: VLM, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nf4.model, tmp_path / "model"))
    write_export_card(folder, measured="| accuracy |\n|---|\n| 0.9 |")
    assert "| 0.9 |" in (folder / card.CARD_FILE).read_text(encoding="utf-8")
    assert VLM(folder).source == nf4.source


def test_the_base_on_the_hub_is_carried_over_from_the_card_of_what_was_merged(
    tiny_qwen3_vl: Path, tmp_path: Path
) -> None:
    merged = Path(shutil.copytree(tiny_qwen3_vl, tmp_path / "merged"))
    card.write_card(merged, "merged", base_model="Qwen/Qwen3-VL-8B-Instruct", relation="finetune", tags=[], sections={})
    found = VLM(merged, device="cpu").export(tmp_path / "int8", quantization="int8")
    assert found.folder is not None
    assert Export.load(found.folder).base_model == "Qwen/Qwen3-VL-8B-Instruct"
    front = (found.folder / card.CARD_FILE).read_text(encoding="utf-8").split("---")[1]
    assert "base_model: Qwen/Qwen3-VL-8B-Instruct" in front
    assert "base_model_relation: quantized" in front


def test_a_record_that_is_none_is_refused(nf4: VLM, tmp_path: Path) -> None:
    _files.write_text(tmp_path / EXPORT_FILE, json.dumps({"name": "x"}))
    with pytest.raises(StorageError, match="is not an export's record"):
        Export.load(tmp_path)
    with pytest.raises(StorageError, match="does not exist"):
        Export.load(tmp_path / "nowhere")
