"""The behaviour half of a merge's proof: base, adapter and merged model asked about the same few photos."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
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
from vlm_tune.training.merging.parts import Parts
from vlm_tune.vlm.scoring import class_scores, score_labels

if TYPE_CHECKING:
    import torch

    from vlm_tune.vlm import VLM, Resident

__all__ = ["Probe", "check", "score_photos"]

_PHOTOS_AT_ONCE = 16
_HARDLY = 0.01
"""Nats by which an adapter moves the scores that are hardly anything: rounding may well move them as far."""


@dataclass(frozen=True)
class _Scores:
    base: torch.Tensor
    adapter: torch.Tensor
    trained: torch.Tensor | None


class Probe:
    """Photos that base, adapter and merged model are asked about.

    None of the three is quantised; what the adapter answers on a quantised base that it was trained on comes beside
    them. However the base is set to answer, the answers are told apart by their scores (of a multi-label task with too
    many, those of `Task.candidates`).

    Args:
        parts: Base and adapters.
        examples: The photos; their labels hardly matter.

    Raises:
        ImageError: A photo cannot be read.
    """

    def __init__(self, parts: Parts, examples: Sequence[Example]) -> None:
        self._parts = parts
        self._examples = tuple(examples)
        task = parts.task
        self._labels = task.candidates(example.label for example in examples if task.is_answer(example.label))
        with ThreadPoolExecutor(_PHOTOS_AT_ONCE) as pool:
            encoded = pool.map(lambda example: images.encode(example.image, max_pixels=task.max_pixels), examples)
            self._photos = [photo.data for photo in encoded]
        self._unmerged: _Scores | None = None

    def ask_unmerged(self) -> None:
        """Ask the base, and the base with its adapters on."""
        if not self._photos:
            return
        with tempfile.TemporaryDirectory() as folder:
            adapter = self._parts.as_one(Path(folder))
            # First, because after a training the quantised base is in memory.
            trained = self._scores(self._parts.base, adapter) if self._parts.base.quantization else None
            base = _where_it_fits(self._parts.base.unquantized())
            self._unmerged = _Scores(self._scores(base), self._scores(base, adapter), trained)

    def ask_merged(self, folder: Path) -> tuple[ProbeAnswer, ...]:
        """Ask the merged folder, loaded like any user would load it, after `ask_unmerged`.

        Returns:
            What each of them answers to every photo, and how far apart their scores are.

        Raises:
            MergeError: A score is not a finite number.
        """
        from vlm_tune.vlm import VLM

        if self._unmerged is None:
            return ()
        base, adapter, trained = self._unmerged.base, self._unmerged.adapter, self._unmerged.trained
        merged = self._scores(VLM(folder, dtype=self._parts.base.dtype, device=self._parts.base.device))
        best_two = adapter.double().log_softmax(-1).topk(2).values
        to_adapter, to_base = self._apart(merged, adapter), self._apart(merged, base)
        learnt = self._apart(base, adapter)
        shift = None if trained is None else self._apart(merged, trained)
        return tuple(
            ProbeAnswer(
                example_id=example.id,
                base=self._answer(base[row]),
                adapter=self._answer(adapter[row]),
                merged=self._answer(merged[row]),
                margin=float(best_two[row, 0] - best_two[row, 1]),
                merged_difference=float(to_adapter[row]),
                base_difference=float(learnt[row]),
                merged_base_difference=float(to_base[row]),
                trained=None if trained is None else self._answer(trained[row]),
                trained_difference=None if shift is None else float(shift[row]),
            )
            for row, example in enumerate(self._examples)
        )

    def _scores(self, model: VLM, adapter: Path | None = None) -> torch.Tensor:
        resident = model.load()
        with nullcontext() if adapter is None else resident.adapted(saved(adapter)):
            return score_photos(resident, self._photos, self._parts.task, self._labels)

    def _answer(self, scores: torch.Tensor) -> str:
        return self._labels[int(scores.argmax())]

    def _apart(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        found = (self._of_classes(first) - self._of_classes(second)).abs().amax(-1)
        if not found.isfinite().all():
            raise MergeError("the scores of a probe image are not finite numbers; try dtype bfloat16 or float32")
        return found

    def _of_classes(self, scores: torch.Tensor) -> torch.Tensor:
        return class_scores(self._parts.task, self._labels, scores.double().log_softmax(-1))


def score_photos(resident: Resident, photos: Sequence[bytes], task: Task, labels: Sequence[str]) -> torch.Tensor:
    """Return the log-probability of every label for every photo, some photos at a time; fewer, where memory runs out.

    Returns:
        Float32 CPU tensor of shape (len(photos), len(labels)); see `scoring.score_labels`.
    """
    import torch

    parts: list[torch.Tensor] = []
    done, size = 0, _PHOTOS_AT_ONCE
    while done < len(photos):
        some = photos[done : done + size]
        try:
            parts.append(score_labels(resident.model, resident.processor, some, task, labels=labels))
            done += len(some)
            continue
        except torch.OutOfMemoryError:
            if len(some) == 1:
                raise
        # Out of the handler, whose traceback would keep the tensors alive.
        torch.cuda.empty_cache()
        size = len(some) // 2
    return torch.cat(parts)


def check(report: MergeReport, *, tolerance: float) -> None:
    """Refuse a merge that does not answer as its adapter does.

    Args:
        report: What was found.
        tolerance: Score difference in nats that counts as noise; see `merge.merge`.

    Raises:
        MergeError: An answer changed where the adapter was sure, or the scores are nearer to the base's than they
            should be.
    """
    if not report.answers:
        return
    kept = f"{100 * report.retained_delta:.0f} % of the update survives the rounding to the checkpoint's type"
    advice = f"{kept}; train longer or with a larger learning rate, or serve the adapter unmerged"
    for answer in report.answers:
        if answer.merged != answer.adapter and answer.margin > tolerance:
            raise MergeError(
                f"the adapter answers {answer.adapter!r} for {answer.example_id}, {answer.margin:.2f} nats ahead, "
                f"and the merged model {answer.merged!r}: {advice}"
            )
    to_adapter = mean(answer.merged_difference for answer in report.answers)
    to_base = mean(answer.merged_base_difference for answer in report.answers)
    learnt = mean(answer.base_difference for answer in report.answers)
    found = f"on the probe images the merged model is {to_adapter:.2g} nats from the adapter"
    # Within the tolerance a difference is noise, but a merge that is no nearer than the base has lost the adapter.
    if to_adapter > max(tolerance, learnt / 2) or (learnt > 0 and to_adapter >= learnt):
        raise MergeError(f"{found}, which is {learnt:.2g} nats from the base: {advice}")
    if learnt > _HARDLY and to_adapter > to_base:
        raise MergeError(f"{found} and only {to_base:.2g} nats from the base, so it is more like the base: {advice}")


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
