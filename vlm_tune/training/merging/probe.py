"""The behaviour half of a merge's proof: base, adapter and merged model asked about the same few photos."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from vlm_tune import images
from vlm_tune._console import notice
from vlm_tune.errors import MergeError, ModelError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.attach import saved
from vlm_tune.training.merging.merge_report import MergeReport, ProbeAnswer
from vlm_tune.vlm.scoring import class_scores, score_labels

if TYPE_CHECKING:
    import torch

    from vlm_tune.training.adapter import Adapter
    from vlm_tune.vlm import VLM, Resident

__all__ = ["check", "probe_answers", "score_photos"]

_PHOTOS_AT_ONCE = 4


def probe_answers(adapter: Adapter, folder: Path, probe: Sequence[Example]) -> tuple[ProbeAnswer, ...]:
    """Return what base, adapter and merged model answer, and how far apart their scores are.

    The merged folder is loaded like any user would load it, and none of the three is quantised; what the adapter
    answers on a quantised base that it was trained on comes beside them. However the base is set to answer, the
    answers are told apart by their scores (of a multi-label task with too many, those of `Task.candidates`).

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
    task = adapter.task
    photos = [images.encode(example.image, max_pixels=task.max_pixels).data for example in probe]
    labels = task.candidates(example.label for example in probe if task.is_answer(example.label))

    def scores(model: VLM, *, adapted: bool = False) -> torch.Tensor:
        resident = model.load()
        with resident.adapted(saved(adapter.path)) if adapted else nullcontext():
            return score_photos(resident, photos, task, labels)

    # First, because after a training the quantised base is in memory.
    of_trained = scores(adapter.base, adapted=True) if adapter.base.quantization else None
    base = _where_it_fits(adapter.base.unquantized())
    of_base, of_adapter = scores(base), scores(base, adapted=True)
    of_merged = scores(VLM(folder, dtype=base.dtype, device=base.device))
    best_two = of_adapter.double().log_softmax(-1).topk(2).values

    def apart(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        found = (_of_classes(task, labels, first) - _of_classes(task, labels, second)).abs().amax(-1)
        if not found.isfinite().all():
            raise MergeError("the scores of a probe image are not finite numbers; try dtype bfloat16 or float32")
        return found

    merged_difference, base_difference = apart(of_merged, of_adapter), apart(of_base, of_adapter)
    trained_difference = None if of_trained is None else apart(of_merged, of_trained)
    return tuple(
        ProbeAnswer(
            example_id=example.id,
            base=labels[int(of_base[row].argmax())],
            adapter=labels[int(of_adapter[row].argmax())],
            merged=labels[int(of_merged[row].argmax())],
            margin=float(best_two[row, 0] - best_two[row, 1]),
            merged_difference=float(merged_difference[row]),
            base_difference=float(base_difference[row]),
            trained=None if of_trained is None else labels[int(of_trained[row].argmax())],
            trained_difference=None if trained_difference is None else float(trained_difference[row]),
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


def _where_it_fits(model: VLM) -> VLM:
    """Return a model that can be loaded: on the CPU, where it is too large for its own device."""
    import torch

    from vlm_tune.vlm import VLM

    try:
        model.load()
        return model
    except ModelError as error:
        if not isinstance(error.__cause__, torch.OutOfMemoryError):
            raise
    notice(
        f"{model.name} does not fit the memory of {model.device}: its answers are compared on the CPU, which is "
        "slow; merge with probe=[] to check the weights alone."
    )
    dtype = "bfloat16" if model.dtype == "auto" else model.dtype
    return VLM(model.folder or model.model, revision=model.revision, dtype=dtype, device="cpu")


def _of_classes(task: Task, labels: Sequence[str], scores: torch.Tensor) -> torch.Tensor:
    return class_scores(task, labels, scores.double().log_softmax(-1))
