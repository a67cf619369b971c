"""What a merge must not get away with, and that every task's answers can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlm_tune as vt
from vlm_tune.errors import ImageError, MergeError
from vlm_tune.statistics import wilson
from vlm_tune.training.merging.merge_report import MergeReport, ProbeAnswer
from vlm_tune.training.merging.probe import check, probe_answers
from vlm_tune.vlm import VLM

CONFIG = vt.TrainConfig(r=8, lora_alpha=32, learning_rate=1e-2, epochs=2)


def report(*differences: tuple[float, float], max_ulps: float = 0.5, merged: str = "dent") -> MergeReport:
    """A report with a pair of differences a photo: merged and base, each against the adapter."""
    answers = tuple(
        ProbeAnswer(
            example_id=f"{place}.jpg",
            base="crack",
            adapter="dent",
            merged=merged,
            margin=2.0,
            merged_difference=of_merged,
            base_difference=of_base,
        )
        for place, (of_merged, of_base) in enumerate(differences)
    )
    return MergeReport(
        tensors_changed=1,
        tensors_untouched=1,
        max_ulps=max_ulps,
        retained_delta=0.4,
        agreement=wilson(len(answers), len(answers)),
        base_agreement=wilson(0, len(answers)),
        max_score_difference=max((one[0] for one in differences), default=0.0),
        answers=answers,
        size_bytes=1,
        seconds=1.0,
        adapter_fingerprint="ab",
    )


@pytest.mark.parametrize(
    "found",
    [
        report(),
        report((0.1, 3.0), (0.2, 2.0)),
        report((0.4, 0.45)),  # noise, but still nearer than the base
        report((0.9, 2.0)),  # more than noise, but less than half of what training changed
        report((0.0, 0.0)),  # an adapter that changes nothing is merged by changing nothing
    ],
)
def test_a_merge_that_is_its_adapter_passes(found: MergeReport) -> None:
    check(found, tolerance=0.5, max_ulps=0.501)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (report((0.1, 3.0), max_ulps=0.6), "0.60 ulp"),
        (report((0.1, 3.0), merged="crack"), "the merged model 'crack': 40 % of the update survives"),
        (report((1.1, 2.0)), "1.1 nats from the adapter, which is 2 nats from the base"),
        (report((0.3, 0.2), (0.1, 0.2)), "0.2 nats from the adapter, which is 0.2 nats from the base"),
        (report((0.003, 0.002)), "0.003 nats from the adapter, which is 0.002 nats from the base"),
    ],
)
def test_a_merge_that_lost_its_adapter_is_refused(found: MergeReport, reason: str) -> None:
    with pytest.raises(MergeError, match=reason):
        check(found, tolerance=0.5, max_ulps=0.501)


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
    adapter.task = many
    compared = probe_answers(adapter, tmp_path / "merged", mixtures.examples[:3])
    assert {one.adapter for one in compared} <= set(many.candidates(one.label for one in mixtures))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        probe_answers(adapter, tmp_path / "merged", [vt.Example(id="x", image=tmp_path / "broken.png", label="red")])
