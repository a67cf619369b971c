import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoProcessor

from vlm_tune.data import Dataset
from vlm_tune.errors import AdapterError, LabelAuditError
from vlm_tune.families import FAMILIES
from vlm_tune.task import Task
from vlm_tune.training import LoRATrainer, TokenAudit, TrainConfig
from vlm_tune.training.attach import fresh
from vlm_tune.training.proving.checks import GradientLiveness, audit_tokens
from vlm_tune.training.running.batches import IGNORED, Batches
from vlm_tune.training.running.fast import Fast
from vlm_tune.training.running.loop import Job, train
from vlm_tune.vlm import VLM


class Spoilt(Batches):
    """Batches with a mistake that collators are known to make."""

    mistake = ""

    def stack(self, encoded: Sequence) -> dict:
        batch = super().stack(encoded)
        last = len(encoded[0].tokens["input_ids"]) - 1
        if self.mistake == "prompt":
            batch["labels"][0, last - encoded[0].num_trained] = batch["input_ids"][0, last - encoded[0].num_trained]
        elif self.mistake == "no end":
            batch["labels"][0, last] = IGNORED
        elif self.mistake == "all masked":
            batch["labels"][0] = IGNORED
        elif self.mistake == "image trained":
            image = self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)
            at = (batch["input_ids"][0] == image).nonzero()[0]
            batch["labels"][0, at] = image
        elif self.mistake == "other token":
            batch["input_ids"][0, last] = 9
        elif self.mistake == "newline behind":
            newline = self.processor.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
            for name, value in (("input_ids", newline), ("labels", newline), ("attention_mask", 1)):
                batch[name] = torch.nn.functional.pad(batch[name], (0, 1), value=value)
        elif self.mistake == "image token lost":
            image = self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)
            at = (batch["input_ids"][0] == image).nonzero()[0]
            batch["input_ids"][0, at] = 9
        return batch


def audited(folder: Path, data: Dataset, mistake: str = ""):
    batches = Spoilt(
        data.examples, processor=AutoProcessor.from_pretrained(folder), task=data.task, dtype=torch.float32
    )
    batches.mistake = mistake
    return audit_tokens(batches, AutoConfig.from_pretrained(folder), batch_size=2)


def test_audit_decodes_every_class(tiny_vlm: Path, colours: Dataset) -> None:
    audit = audited(tiny_vlm, colours)
    assert audit.trained_text == {label: f"{label}<|im_end|>" for label in colours.task.classes}
    assert audit.examples >= 3
    assert 0 < audit.trained_fraction < 0.5
    assert audit.image_tokens > 0


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("prompt", "would be trained, not 'red<|im_end|>'"),
        ("no end", "the answer is cut: 'red' would be trained, not 'red<|im_end|>'"),
        ("all masked", "nothing would be trained"),
        ("image trained", "an image token would be trained"),
        ("other token", "not the tokens that the model reads"),
        ("newline behind", "would be trained, not 'red<|im_end|>'"),
        ("image token lost", "image tokens but the images have"),
    ],
)
def test_audit_finds_what_collators_get_wrong(tiny_vlm: Path, colours: Dataset, mistake: str, words: str) -> None:
    with pytest.raises(LabelAuditError, match=re.escape(words)):
        audited(tiny_vlm, colours, mistake)


def test_one_example_is_all_there_in_spans(tiny_vlm: Path, colours: Dataset) -> None:
    audit = audited(tiny_vlm, colours)
    assert audit.example_id == colours[0].id
    *before, last = audit.spans
    assert (last.kind, last.text) == ("trained", "red<|im_end|>")
    (image,) = [span for span in before if span.kind == "image"]
    assert image.text == f"<image x {image.num_tokens}>"
    assert {span.kind for span in before} == {"masked", "image"}
    assert "Which colour?" in "".join(span.text for span in before)
    whole = sum(span.num_tokens for span in audit.spans)
    assert whole * audit.examples == audit.total_tokens  # all photos are of one size, all labels of one token
    assert image.num_tokens * audit.examples == audit.image_tokens


def test_the_audit_shows_itself(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = audited(tiny_qwen3_vl, colours)
    audit.show()
    shown = capsys.readouterr().out
    for words in (audit.headline, audit.example_id, "<image x 12>", "Which colour?", "red<|im_end|>"):
        assert words in shown
    html = audit.to_html()
    assert "&lt;|im_end|&gt;" in html and "background-color" in html
    assert list(audit.frame()["trained_text"]) == [f"{label}<|im_end|>" for label in audit.frame()["label"]]
    drawn = " ".join(text.get_text() for text in audit.plot().axes[0].texts)
    assert "<image x 12>" in drawn and audit.example_id in drawn
    assert TokenAudit.load(audit.save(tmp_path / "audit.json")) == audit


def test_the_trainer_audits_without_weights(
    tiny_qwen3_vl: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
    audit = LoRATrainer(VLM(tiny_qwen3_vl)).audit(colours)
    assert audit.trained_text["blue"] == "blue<|im_end|>"


def test_markup_in_labels_is_shown_as_it_stands(
    tiny_qwen3_vl: Path, colours: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {label: f"[bold]{label}[/]<b>" for label in colours.task.classes}
    task = Task(prompt="Which?", classes=tuple(names.values()))
    data = Dataset([one.model_copy(update={"label": names[one.label]}) for one in colours], task=task)
    audit = audited(tiny_qwen3_vl, data)
    audit.show()
    assert "[bold]red[/]<b>" in capsys.readouterr().out
    assert "<b>" not in audit.to_html()


def parameters(**gradients: float | None):
    for name, gradient in gradients.items():
        place = {"q": "language_model.layers.0.self_attn.q_proj", "qkv": "visual.blocks.0.attn.qkv"}[name]
        parameter = torch.nn.Parameter(torch.zeros(2, 2))
        parameter.grad = None if gradient is None else torch.full((2, 2), gradient)
        yield f"base_model.model.model.{place}.lora_B.default.weight", parameter


def test_every_adapter_has_a_few_steps_to_come_alive() -> None:
    liveness = GradientLiveness(FAMILIES["qwen3_vl"], steps=3)
    liveness.check(parameters(q=1.0, qkv=0.0))
    liveness.check(parameters(q=0.0, qkv=0.5))
    liveness.check(parameters(q=0.0, qkv=0.0))
    liveness.check(parameters(q=None, qkv=None))


@pytest.mark.parametrize("gradient", [0.0, None])
def test_the_dead_are_counted_by_region(gradient: float | None) -> None:
    liveness = GradientLiveness(FAMILIES["qwen3_vl"], steps=2)
    liveness.check(parameters(q=1.0, qkv=gradient))
    with pytest.raises(AdapterError, match=r"vision attention 1 of 1; first model\.visual\.blocks\.0\.attn\.qkv"):
        liveness.check(parameters(q=1.0, qkv=gradient))


def test_a_short_training_is_judged_at_its_end() -> None:
    with pytest.raises(AdapterError, match="vision attention"):
        GradientLiveness(FAMILIES["qwen3_vl"]).check(parameters(q=1.0, qkv=0.0), last=True)


@pytest.mark.parametrize("gradient", [float("nan"), float("inf")])
def test_gradients_must_be_finite(gradient: float) -> None:
    with pytest.raises(AdapterError, match="language attention 1 of 1"):
        GradientLiveness(FAMILIES["qwen3_vl"]).check(parameters(q=gradient, qkv=1.0))


def test_modules_trained_in_full_need_a_gradient_too() -> None:
    def full(weight: float, bias: float):
        for name, gradient in (("weight", weight), ("bias", bias)):
            parameter = torch.nn.Parameter(torch.zeros(2))
            parameter.grad = torch.full((2,), gradient)
            yield f"base_model.model.model.visual.merger.modules_to_save.default.{name}", parameter

    family = FAMILIES["qwen3_vl"]
    GradientLiveness(family, steps=1).check(full(1.0, 0.0))
    with pytest.raises(AdapterError, match=r"first model\.visual\.merger\."):
        GradientLiveness(family, steps=1).check(full(0.0, 0.0))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("fast", [True, False])
def test_every_adapter_comes_alive_on_both_paths(
    tiny_vlm: Path, colours: Dataset, fast: bool, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watches: list[GradientLiveness] = []
    monkeypatch.setattr(
        "vlm_tune.training.running.watch.GradientLiveness",
        lambda *args, **kwargs: watches.append(GradientLiveness(*args, **kwargs)) or watches[-1],
    )
    resident = VLM(tiny_vlm).load()
    config = TrainConfig(r=4, fast=fast, gradient_checkpointing=checkpointing, kinds=("attention", "mlp"))
    batches = Batches(colours.examples[:8], processor=resident.processor, task=colours.task, dtype=resident.dtype)
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        train(Job(resident=resident, wrapped=wrapped, batches=batches, config=config, title="Testing", max_steps=3))
        asked = {name: p for name, p in wrapped.named_parameters() if ".lora_B." in name}
    (watch,) = watches
    assert len(watch._alive) == len(asked) > 10
    assert all(p.abs().sum() > 0 and p.isfinite().all() for p in asked.values())


def test_an_adapter_that_is_cut_off_is_found_on_the_fast_path_too(
    tiny_qwen3_vl: Path, colours: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a frozen tower would allow, features looked at once and kept, starves adapters that are in it. The comparison
    # with the stock way finds that too, and is left out here.
    resident = VLM(tiny_qwen3_vl).load()
    config = TrainConfig(r=4)
    batches = Batches(colours.examples[:8], processor=resident.processor, task=colours.task, dtype=resident.dtype)
    with resident.adapted(fresh(config, resident.family.target_modules(config.regions, config.kinds))) as wrapped:
        monkeypatch.setattr("vlm_tune.training.running.loop.Fast", _SeesOnce)
        with pytest.raises(AdapterError, match=r"vision attention \d+ of \d+"):
            train(Job(resident=resident, wrapped=wrapped, batches=batches, config=config, title="Testing"))


class _SeesOnce(Fast):
    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **{**settings, "sees_once": True})

    def difference(self, *unused: object) -> float:
        return 0.0
