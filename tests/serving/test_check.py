"""A folder with a server's eyes: commands, losses, and what a server would trip over."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlm_tune import demo
from vlm_tune.errors import ModelError, StorageError
from vlm_tune.serving import ServingCheck, serving_check
from vlm_tune.task import Task
from vlm_tune.training import Adapter


def merged(adapter: Adapter) -> Path:
    return adapter.path.parent / "merged"


def test_the_commands_serve_the_merged_folder_as_it_was_trained(qwen3_adapter: Adapter) -> None:
    folder = merged(qwen3_adapter)
    check = serving_check(folder, name="colours").raise_if_failed()
    size = {"shortest_edge": 1024, "longest_edge": 9439}
    assert check.ok
    assert check.max_pixels == 64 * 48
    assert check.processor_settings == {"size": size}
    assert check.command("vllm").argv == (
        *("vllm", "serve", str(folder)),
        *("--served-model-name", "colours"),
        *("--dtype", "float32"),
        *("--chat-template", str(folder / "chat_template.jinja")),
        *("--chat-template-content-format", "openai"),
        *("--generation-config", "vllm"),
        *("--limit-mm-per-prompt", '{"image": 1, "video": 0}'),
        *("--mm-processor-kwargs", json.dumps({"size": size})),
        *("--host", "127.0.0.1"),
        *("--port", "8000"),
    )
    assert check.command("sglang").argv == (
        *("python", "-m", "sglang.launch_server"),
        *("--model-path", str(folder)),
        *("--served-model-name", "colours"),
        *("--dtype", "float32"),
        *("--chat-template", str(folder / "chat_template.jinja")),
        *("--sampling-defaults", "openai"),
        *("--limit-mm-data-per-request", '{"image": 1}'),
        *("--mm-process-config", json.dumps({"image": {"size": size}})),
        *("--host", "127.0.0.1"),
        *("--port", "30000"),
    )
    assert check.command("sglang").url == "http://127.0.0.1:30000/v1"


def test_a_processor_without_a_bound_on_the_area_is_left_alone(lfm2_adapter: Adapter) -> None:
    check = serving_check(merged(lfm2_adapter))
    assert check.ok
    assert check.processor_settings == {}
    assert "--mm-processor-kwargs" not in check.command("vllm").argv
    assert '{"image": 1}' in check.command("vllm").argv
    # The model takes 128,000 tokens; a photo, a question and a long answer need a few thousand.
    assert check.command("vllm").argv[check.command("vllm").argv.index("--max-model-len") + 1] == "4096"


def test_an_adapter_would_lose_its_vision_and_projector_layers(adapter: Adapter) -> None:
    check = serving_check(adapter.path)
    assert (check.kind, check.model, check.ok) == ("adapter", merged(adapter), True)
    tensors = load_file(adapter.path / "adapter_model.safetensors")
    total = sum(tensor.numel() for tensor in tensors.values())
    projector = ("merger", "projector")
    outside = {name: tensor for name, tensor in tensors.items() if ".language_model." not in name}
    expected = {
        "projector": {name: one for name, one in outside.items() if any(word in name for word in projector)},
        "vision": {name: one for name, one in outside.items() if not any(word in name for word in projector)},
    }
    for parts in check.lost.values():
        assert [part.region for part in parts] == ["vision", "projector"]
        for part in parts:
            mine = expected[part.region]
            assert part.modules == len(mine) / 2 > 0
            assert part.parameters == sum(tensor.numel() for tensor in mine.values())
            assert part.share == pytest.approx(part.parameters / total)
    vllm, sglang = check.runtime
    assert vllm.refused == ()
    assert f"leaves out vision ({vllm.lost[0].modules} layers) and projector" in vllm.sentence
    assert "unless started with --enable-tower-connector-lora" in vllm.sentence
    # It is saved with the pattern of its layers, which SGLang takes for a shorthand that it does not know.
    assert sglang.refused == ("its target_modules is a pattern",)
    assert sglang.sentence.startswith("SGLang refuses it (its target_modules is a pattern) and would leave out vision")
    assert len(check.frame()) == 4


def test_a_merged_model_alone_still_says_what_an_adapter_would_lose(adapter: Adapter, tmp_path: Path) -> None:
    alone = shutil.copytree(merged(adapter), tmp_path / "shipped")
    known, found = serving_check(merged(adapter)), serving_check(alone)
    assert known.lost == serving_check(adapter.path).lost
    for mine, theirs in zip(found.lost["vllm"], known.lost["vllm"], strict=True):
        assert (mine.modules, mine.parameters, mine.layers) == (theirs.modules, None, theirs.layers)
        assert mine.share == pytest.approx(theirs.share)
    assert found.max_pixels == known.max_pixels == adapter.task.max_pixels
    assert found.runtime[0].kept_by == "--enable-tower-connector-lora"
    assert serving_check(alone, adapter=adapter.path).lost == known.lost


def test_an_adapter_whose_base_has_moved_is_done_without(qwen3_adapter: Adapter, tmp_path: Path) -> None:
    for name in ("adapter", "merged"):
        shutil.copytree(qwen3_adapter.path.parent / name, tmp_path / name)
    card = json.loads((tmp_path / "adapter/vlm_tune.json").read_text())
    change_json(tmp_path / "adapter", "vlm_tune.json", base=card["base"] | {"model": str(tmp_path / "moved")})
    check = serving_check(tmp_path / "merged")
    assert check.ok
    assert [part.parameters for part in check.lost["vllm"]] == [None, None]
    with pytest.raises(ModelError, match="moved, which is not there any more"):
        serving_check(tmp_path / "adapter")


def test_an_adapter_that_is_not_merged_cannot_be_served(qwen3_adapter: Adapter, tmp_path: Path) -> None:
    check = serving_check(qwen3_adapter.path, merged=tmp_path / "not yet")
    assert not check.ok
    assert check.command("vllm").argv[2] == str(tmp_path / "not yet")
    with pytest.raises(ModelError, match=r"has not been merged into .*not yet; Adapter.load\(...\).merge"):
        check.raise_if_failed()


def test_any_model_can_be_checked_and_says_what_it_does_not_know() -> None:
    check = serving_check(demo.model_path())
    told = serving_check(demo.model_path(), task=demo.task())
    assert check.ok and told.ok
    assert check.runtime == ()
    assert check.max_pixels == Task.model_fields["max_pixels"].default
    assert any("image budget" in finding.what for finding in check.findings)
    assert not any("image budget" in finding.what for finding in told.findings)
    assert any("merge_report.json" in finding.what for finding in told.findings)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        serving_check(tmp_path / "nothing")
    with pytest.raises(ModelError, match="no config"):
        serving_check(tmp_path)


def change_json(folder: Path, name: str, **changes: object) -> None:
    settings = json.loads((folder / name).read_text())
    settings |= changes
    (folder / name).write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


HEAD = "model.language_model.norm.weight"


def cut_off(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    change_json(folder, "tokenizer_config.json", chat_template=None)


def template_in_json(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))


FAULTS: dict[str, tuple[str, str, Callable[[Path], object]]] = {
    "cut off": ("error", "model.safetensors is cut off", cut_off),
    "missing": (
        "error",
        f"1 weights are missing, first {HEAD}",
        lambda folder: change_weights(folder, lambda weights: weights.pop(HEAD)),
    ),
    "shape": (
        "error",
        f"1 weights have another shape than the model's, first {HEAD}",
        lambda folder: change_weights(folder, lambda weights: weights.update({HEAD: torch.zeros(3)})),
    ),
    "superfluous": (
        "warning",
        "1 weights belong to no part of the model, first left.over",
        lambda folder: change_weights(folder, lambda weights: weights.update({"left.over": torch.zeros(3)})),
    ),
    "types": (
        "warning",
        "several types",
        lambda folder: change_weights(folder, lambda weights: weights.update({HEAD: weights[HEAD].bfloat16()})),
    ),
    "class": ("error", "names no architectures", lambda folder: change_json(folder, "config.json", architectures=None)),
    "processor": ("error", "cannot read the model", lambda folder: (folder / "processor_config.json").unlink()),
    "tokenizer": ("error", "cannot read", lambda folder: (folder / "tokenizer.json").write_text("{")),
    "template": ("error", "there is no chat template", without_template),
    "template in JSON": ("warning", "inside a JSON file", template_in_json),
    "penalty": (
        "warning",
        "sets repetition_penalty to 1.05",
        lambda folder: change_json(folder, "generation_config.json", repetition_penalty=1.05),
    ),
    "broken settings": (
        "error",
        "generation_config.json cannot be read",
        lambda folder: (folder / "generation_config.json").write_text("{"),
    ),
    "quantised": (
        "warning",
        "quantised with bitsandbytes",
        lambda folder: change_json(folder, "config.json", quantization_config={"quant_method": "bitsandbytes"}),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_server_would_trip_over(fault: str, qwen3_adapter: Adapter, tmp_path: Path) -> None:
    level, words, damage = FAULTS[fault]
    whole = serving_check(merged(qwen3_adapter))
    folder = shutil.copytree(merged(qwen3_adapter), tmp_path / "model")
    damage(folder)
    check = serving_check(folder)
    found = [finding for finding in check.findings if words in finding.what]
    assert [finding.level for finding in found] == [level], check.findings
    assert found[0] not in whole.findings
    assert check.ok == (level == "warning")
    assert check.findings == tuple(sorted(check.findings, key=lambda finding: finding.level))


def test_an_answer_that_nothing_ends_is_an_error(qwen3_adapter: Adapter, tmp_path: Path) -> None:
    folder = shutil.copytree(merged(qwen3_adapter), tmp_path / "model")
    end = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    other = "<|endoftext|>"
    change_json(folder, "tokenizer_config.json", eos_token=other)
    only_there = serving_check(folder)
    assert only_there.ok
    assert any("only generation_config.json says" in finding.what for finding in only_there.findings)
    # Then vLLM must go by it.
    assert "--generation-config" not in only_there.command("vllm").argv
    change_json(folder, "generation_config.json", eos_token_id=end + 5)
    assert any("write on behind it" in finding.what for finding in serving_check(folder).findings)


def test_show_save_and_load(
    qwen3_adapter: Adapter, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    check = serving_check(merged(qwen3_adapter), name="two words")
    check.show()
    shown = capsys.readouterr().out
    # Nothing is wrapped or cut in what is copied, however narrow the terminal.
    assert check.command("vllm").shell in shown
    assert check.command("sglang").shell in shown
    assert "--served-model-name 'two words' \\\n" in shown
    assert ServingCheck.load(check.save(tmp_path / "check.json")) == check
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StorageError, match="is not a saved serving check"):
        ServingCheck.load(tmp_path / "other.json")
