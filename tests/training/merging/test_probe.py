"""What a merge must not get away with, and that every task's answers can be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import vlm_tune as vt
from vlm_tune.errors import ImageError, MergeError
from vlm_tune.statistics import wilson
from vlm_tune.training.merging import probe as probing
from vlm_tune.training.merging.merge_report import MergeReport, ProbeAnswer
from vlm_tune.training.merging.parts import parts_of
from vlm_tune.training.merging.probe import Probe, check
from vlm_tune.vlm import VLM

CONFIG = vt.TrainConfig(r=8, lora_alpha=32, learning_rate=1e-2, epochs=2)


def report(*differences: tuple[float, float, float], merged: str = "dent") -> MergeReport:
    """A report with three distances a photo: merged from adapter, base from adapter, merged from base."""
    answers = tuple(
        ProbeAnswer(
            example_id=f"{place}.jpg",
            base="crack",
            adapter="dent",
            merged=merged,
            margin=2.0,
            merged_difference=of_merged,
            base_difference=of_base,
            merged_base_difference=between,
        )
        for place, (of_merged, of_base, between) in enumerate(differences)
    )
    return MergeReport(
        changed=("model.layer",),
        tensors_changed=1,
        tensors_untouched=1,
        untouched_sha256="ab",
        max_ulps=0.5,
        retained_delta=0.4,
        least_retained_delta=0.1,
        least_retained_module="model.layer",
        agreement=wilson(len(answers), len(answers)),
        base_agreement=wilson(0, len(answers)),
        max_score_difference=max((one[0] for one in differences), default=0.0),
        answers=answers,
        task=vt.Task(prompt="?", classes=("crack", "dent")),
        size_bytes=1,
        write_s=0.4,
        prove_s=0.5,
        seconds=1.0,
        adapter_fingerprint="ab",
    )


@pytest.mark.parametrize(
    "found",
    [
        report(),
        report((0.1, 3.0, 3.1), (0.2, 2.0, 1.9)),
        report((0.4, 0.45, 0.41)),  # noise, but still nearer to the adapter
        report((0.9, 2.0, 1.2)),  # more than noise, but less than half of what training changed
        report((0.0, 0.0, 0.0)),  # an adapter that changes nothing is merged by changing nothing
        report((0.007, 0.009, 0.003)),  # one that does hardly anything: which is nearer is rounding
    ],
)
def test_a_merge_that_is_its_adapter_passes(found: MergeReport) -> None:
    check(found, tolerance=0.5)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (report((0.1, 3.0, 3.0), merged="crack"), "the merged model 'crack': 40 % of the update survives"),
        (report((1.1, 2.0, 1.2)), "1.1 nats from the adapter, which is 2 nats from the base"),
        (report((0.3, 0.2, 0.3), (0.1, 0.2, 0.3)), "0.2 nats from the adapter, which is 0.2 nats from the base"),
        (report((0.003, 0.002, 0.003)), "0.003 nats from the adapter, which is 0.002 nats from the base"),
        # Below half a nat too: between base and adapter, and nearer to the base.
        (report((0.4, 0.45, 0.05)), "0.4 nats from the adapter and only 0.05 nats from the base"),
        (report((0.03, 0.04, 0.02)), "0.03 nats from the adapter and only 0.02 nats from the base"),
        (report((0.1, 0.4, 0.3), (0.4, 0.45, 0.01)), "0.25 nats from the adapter and only 0.15 nats from the base"),
    ],
)
def test_a_merge_that_lost_its_adapter_is_refused(found: MergeReport, reason: str) -> None:
    with pytest.raises(MergeError, match=reason):
        check(found, tolerance=0.5)


def test_what_was_lost_to_rounding_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    found = report()
    assert found.lost is not None
    assert re.search(r"only 40 % of the adapter's update survives.*least in model\.layer \(10 %\)", found.lost)
    assert found.model_copy(update={"retained_delta": 0.95}).lost is None
    found.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "only 40 % of" in shown and "not compared: there were no probe images" in shown


def test_lists_of_classes_are_trained_merged_and_compared(
    bold_qwen3_vl: Path, mixtures: vt.Dataset, tmp_path: Path
) -> None:
    adapter = vt.LoRATrainer(VLM(bold_qwen3_vl), CONFIG).fit(mixtures, run_dir=tmp_path)
    merged = adapter.merge(tmp_path / "merged")
    found = MergeReport.load(tmp_path / "merged")
    answers = {one.example_id: one.label for one in adapter.predict(mixtures.examples, mixtures.task)}
    assert {one.example_id: one.adapter for one in found.answers}.items() <= answers.items()
    assert found.agreement.value == 1
    after = {one.example_id: one.label for one in merged.predict(mixtures.examples, mixtures.task)}
    assert after == answers
    assert set(after.values()) <= set(mixtures.task.answers)

    # More classes than can be scored: what is compared is what there is to tell apart.
    many = mixtures.task.model_copy(update={"classes": (*mixtures.task.classes, *"abcdefgh")})
    asked = replace(parts_of([(adapter, 1.0)]), task=many)
    probe = Probe(asked, mixtures.examples[:3])
    probe.ask_unmerged()
    compared = probe.ask_merged(tmp_path / "merged")
    assert {one.adapter for one in compared} <= set(many.candidates(one.label for one in mixtures))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        Probe(asked, [vt.Example(id="x", image=tmp_path / "broken.png", label="red")])


def test_fewer_photos_at_once_where_memory_runs_out(
    bold_qwen3_vl: Path, colours: vt.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = VLM(bold_qwen3_vl, device="cpu").load()
    photos = [example.read() for example in colours.examples[:7]]
    want = probing.score_photos(resident, photos, colours.task, colours.task.answers)
    sizes, score = [], probing.score_labels

    def crowded(model: Any, processor: Any, some: Sequence[bytes], *args: Any, **kwargs: Any) -> torch.Tensor:
        sizes.append(len(some))
        if len(some) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return score(model, processor, some, *args, **kwargs)

    monkeypatch.setattr(probing, "score_labels", crowded)
    assert torch.allclose(probing.score_photos(resident, photos, colours.task, colours.task.answers), want, atol=1e-4)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
