"""The behaviour half of a merge's proof: base, adapter and merged model asked about the same few photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from vlm_tune import images
from vlm_tune.errors import MergeError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.attach import saved
from vlm_tune.training.merge_report import MergeReport, ProbeAnswer
from vlm_tune.vlm.scoring import class_scores, score_labels

if TYPE_CHECKING:
    import torch

    from vlm_tune.training.adapter import Adapter
    from vlm_tune.vlm import Resident

__all__ = ["check", "probe_answers", "score_photos"]

_PHOTOS_AT_ONCE = 4


def probe_answers(adapter: Adapter, folder: Path, probe: Sequence[Example]) -> tuple[ProbeAnswer, ...]:
    """Return what base, adapter and merged model answer, and how far apart their scores are.

    The merged folder is loaded like any user would load it. However the base is set to answer, the answers are
    told apart by their scores (of a multi-label task with too many, those of `Task.candidates`).

    Args:
        adapter: The adapter, with its base.
        folder: The merged model.
        probe: The photos; their labels hardly matter.

    Raises:
        ImageError: A photo cannot be read.
        MergeError: A score is not a finite number.
    """
    from vlm_tune.vlm import VLM

    if not probe:
        return ()
    task, base = adapter.task, adapter.base
    photos = [images.encode(example.image, max_pixels=task.max_pixels).data for example in probe]
    labels = task.candidates(example.label for example in probe if task.is_answer(example.label))
    resident = base.load()
    of_base = score_photos(resident, photos, task, labels)
    with resident.adapted(saved(adapter.path)):
        of_adapter = score_photos(resident, photos, task, labels)
    merged = VLM(folder, dtype=base.dtype, device=base.device)
    of_merged = score_photos(merged.load(), photos, task, labels)
    best_two = of_adapter.double().log_softmax(-1).topk(2).values
    difference = {
        name: (_of_classes(task, labels, scores) - _of_classes(task, labels, of_adapter)).abs().amax(-1)
        for name, scores in (("merged", of_merged), ("base", of_base))
    }
    if not all(values.isfinite().all() for values in difference.values()):
        raise MergeError("the scores of a probe image are not finite numbers; try dtype bfloat16 or float32")
    return tuple(
        ProbeAnswer(
            example_id=example.id,
            base=labels[int(of_base[row].argmax())],
            adapter=labels[int(of_adapter[row].argmax())],
            merged=labels[int(of_merged[row].argmax())],
            margin=float(best_two[row, 0] - best_two[row, 1]),
            merged_difference=float(difference["merged"][row]),
            base_difference=float(difference["base"][row]),
        )
        for row, example in enumerate(probe)
    )


def score_photos(resident: Resident, photos: Sequence[bytes], task: Task, labels: Sequence[str]) -> torch.Tensor:
    """Return the log-probability of every label for every photo, a few photos at a time.

    Returns:
        Float32 CPU tensor of shape (len(photos), len(labels)); see `scoring.score_labels`.
    """
    import torch

    parts = [
        score_labels(resident.model, resident.processor, photos[start : start + _PHOTOS_AT_ONCE], task, labels=labels)
        for start in range(0, len(photos), _PHOTOS_AT_ONCE)
    ]
    return torch.cat(parts)


def check(report: MergeReport, *, tolerance: float, max_ulps: float) -> None:
    """Refuse a merge that is not its adapter.

    Args:
        report: What was found.
        tolerance: Score difference in nats that counts as noise; see `merge.merge`.
        max_ulps: Largest distance of a stored weight from the exact sum, in units in the last place.

    Raises:
        MergeError: A weight is too far off, an answer changed where the adapter was sure, or the scores are
            nearer to the base's than they should be.
    """
    kept = f"{100 * report.retained_delta:.0f} % of the update survives the rounding to the checkpoint's type"
    advice = f"{kept}; train longer or with a larger learning rate, or serve the adapter unmerged"
    if report.max_ulps > max_ulps:
        raise MergeError(f"a stored weight is {report.max_ulps:.2f} ulp from the exact sum; the disk may be faulty")
    for answer in report.answers:
        if answer.merged != answer.adapter and answer.margin > tolerance:
            raise MergeError(
                f"the adapter answers {answer.adapter!r} for {answer.example_id}, {answer.margin:.2f} nats ahead, "
                f"and the merged model {answer.merged!r}: {advice}"
            )
    merged = mean(answer.merged_difference for answer in report.answers) if report.answers else 0.0
    base = mean(answer.base_difference for answer in report.answers) if report.answers else 0.0
    # Within the tolerance a difference is noise, but a merge that is no nearer than the base has lost the adapter.
    if merged > max(tolerance, base / 2) or (base > 0 and merged >= base):
        raise MergeError(
            f"on the probe images the merged model is {merged:.2g} nats from the adapter, which is {base:.2g} nats "
            f"from the base: {advice}"
        )


def _of_classes(task: Task, labels: Sequence[str], scores: torch.Tensor) -> torch.Tensor:
    return class_scores(task, labels, scores.double().log_softmax(-1))
