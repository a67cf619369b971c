"""Variants side by side: each number is that of its own model, and the card gets the right ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import vlm_tune as vt
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Comparison, Evaluator, ExportReport, Variant, compare_exports
from vlm_tune.vlm import VLM
from vlm_tune.vlm.quantization import weight_bytes

TASK = vt.Task(prompt="What is it?", classes=("crack", "dent", "scratch"))


@pytest.fixture(scope="module")
def photos(noise_png: Callable[..., bytes]) -> vt.Dataset:
    labels = TASK.classes
    examples = [vt.Example(id=str(at), image=noise_png(40, 60, at), label=labels[at % 3]) for at in range(24)]
    return vt.Dataset(examples, task=TASK)


@pytest.fixture(scope="module")
def models(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> list[VLM]:
    base = VLM(tiny_qwen3_vl, device="cpu")
    nf4 = base.export(tmp_path_factory.mktemp("exports") / "nf4", quantization="nf4")
    return [base, VLM(tiny_qwen3_vl, device="cpu", quantization="int8"), nf4]


@pytest.fixture(scope="module")
def report(models: list[VLM], photos: vt.Dataset) -> ExportReport:
    return compare_exports(models, photos)


def test_each_row_is_what_its_model_answers_alone(report: ExportReport, models: list[VLM], photos: vt.Dataset) -> None:
    evaluations = [Evaluator(photos).run(model) for model in models]
    assert [variant.weights for variant in report.variants] == ["float32", "int8", "nf4"]
    for variant, model, evaluation in zip(report.variants, models, evaluations, strict=True):
        assert (variant.name, variant.source) == (model.name, model.source)
        assert variant.accuracy == evaluation.accuracy
        assert variant.photos_per_s > 0
    first, *others = report.variants
    assert (first.difference, first.wins, first.losses, first.p_value, first.verdict) == (None,) * 5
    for variant, evaluation in zip(others, evaluations[1:], strict=True):
        paired = Comparison(candidate=evaluation, reference=evaluations[0])
        assert (variant.wins, variant.losses, variant.p_value) == (paired.wins, paired.losses, paired.p_value)
        assert (variant.difference, variant.verdict) == (paired.difference, paired.verdict)
    # Four bits of a tiny model change answers; otherwise none of this says anything.
    assert (report.variants[2].wins or 0) + (report.variants[2].losses or 0) > 0


def test_memory_and_disk_are_those_of_the_weights(report: ExportReport, models: list[VLM]) -> None:
    whole, int8, nf4 = report.variants
    assert whole.weights_gb > max(int8.weights_gb, nf4.weights_gb)
    assert nf4.weights_gb == weight_bytes(models[2].load().model) / 1e9
    assert whole.disk_gb == int8.disk_gb
    assert nf4.disk_gb is not None
    assert whole.disk_gb is not None
    assert nf4.disk_gb < whole.disk_gb
    assert {variant.peak_gb for variant in report.variants} == {None}
    assert "CPU" in report.device


def test_it_is_shown_in_words(report: ExportReport, capsys: pytest.CaptureFixture[str]) -> None:
    report.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert f"24 photos, 3 classes, on {report.device}" in shown
    for word in ("float32", "int8", "nf4", "photos a second", "points"):
        assert word in shown


def test_it_is_a_frame_and_a_figure(report: ExportReport) -> None:
    frame = report.frame()
    assert list(frame["weights"]) == ["float32", "int8", "nf4"]
    assert frame["accuracy_low"].lt(frame["accuracy"]).all()
    assert math.isnan(frame["p_value"][0])
    assert [text.get_text() for text in report.plot().axes[0].get_yticklabels()] == [
        variant.name for variant in report.variants
    ]


def test_it_is_saved_and_read_back(report: ExportReport, tmp_path: Path) -> None:
    assert ExportReport.load(report.save(tmp_path / "report.json")) == report
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(StorageError, match="is not a saved export report"):
        ExportReport.load(tmp_path / "other.json")


def test_the_card_of_an_export_gets_its_row_and_the_first(report: ExportReport, models: list[VLM]) -> None:
    text = report.write_card(models[2]).read_text(encoding="utf-8")
    assert "Nothing yet" not in text
    first, _, last = report.variants
    assert first.accuracy is not None
    assert last.accuracy is not None
    assert f"|  | {first.name} | {last.name} |\n| --- | ---: | ---: |\n| weights | float32 | nf4 |" in text
    assert f"| accuracy | {first.accuracy.percent()} | {last.accuracy.percent()} |" in text
    assert f"24 photos, 3 classes, on {report.device}" in text


def test_a_card_of_something_else_is_refused(
    report: ExportReport, models: list[VLM], tiny_lfm2_vl: Path, photos: vt.Dataset
) -> None:
    with pytest.raises(EvaluationError, match="no export that was measured here"):
        report.write_card(VLM(tiny_lfm2_vl))
    with pytest.raises(StorageError, match="does not exist"):
        report.write_card(models[0])


@pytest.mark.parametrize("which", [[], [0], [0, 0]])
def test_there_must_be_something_to_compare(models: list[VLM], photos: vt.Dataset, which: list[int]) -> None:
    with pytest.raises(EvaluationError, match="at least two models with different names"):
        compare_exports([models[at] for at in which], photos)


def test_a_model_that_fails_on_every_photo_has_no_accuracy(report: ExportReport, models: list[VLM]) -> None:
    broken = vt.Dataset([vt.Example(id=label, image=b"no image", label=label) for label in TASK.classes], task=TASK)
    found = compare_exports(models[:2], broken)
    assert [variant.accuracy for variant in found.variants] == [None, None]
    assert found.variants[1].verdict == "not_established"
    found.show()
    with pytest.raises(EvaluationError, match="no model answered"):
        found.plot()


def test_names_are_shown_as_they_are(report: ExportReport, capsys: pytest.CaptureFixture[str]) -> None:
    named = report.variants[0].model_copy(update={"name": "[red]<b>|"})
    report.model_copy(update={"variants": (named,)}).show()
    assert "[red]<b>|" in capsys.readouterr().out
    assert isinstance(named, Variant)


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available() or not find_spec("bitsandbytes"), reason="needs a CUDA device and bitsandbytes"
)
def test_a_gpu_takes_both_formats_and_its_memory_is_measured(
    tiny_lfm2_vl: Path, photos: vt.Dataset, tmp_path: Path
) -> None:
    base = VLM(tiny_lfm2_vl, dtype="bfloat16", device="cuda")
    exports = [base.export(tmp_path / how, quantization=how) for how in ("int8", "nf4")]
    found = compare_exports([base, *exports], photos)
    assert [variant.weights for variant in found.variants] == ["bfloat16", "int8", "nf4"]
    for variant in found.variants:
        assert variant.accuracy is not None
        assert variant.peak_gb is not None
        assert variant.peak_gb > variant.weights_gb
    assert found.device == f"one {torch.cuda.get_device_name('cuda')}"
