"""Merging adapters into their base on disk, tensor by tensor, and proving that nothing was lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_tune import _console, _files
from vlm_tune.errors import MergeError, StorageError
from vlm_tune.records import Estimate, Example
from vlm_tune.statistics import wilson
from vlm_tune.training.merging.about import write_card
from vlm_tune.training.merging.crew import crew
from vlm_tune.training.merging.merge_report import REPORT_FILE, MergeReport, ProbeAnswer
from vlm_tune.training.merging.names import names_on_disk
from vlm_tune.training.merging.parts import Parts
from vlm_tune.training.merging.probe import Probe, check
from vlm_tune.training.merging.proving import Rounding, WeightsProof
from vlm_tune.training.merging.stored import Checkpoint, open_checkpoint
from vlm_tune.training.merging.updates import Update, read_updates
from vlm_tune.training.merging.writing import write
from vlm_tune.vlm import VLM
from vlm_tune.vlm.loading import pick_device

__all__ = ["merge"]


def merge(parts: Parts, path: Path | str, *, probe: Sequence[Example] | None, tolerance: float = 0.5) -> MergeReport:
    """Merge adapters into their base checkpoint and prove it; nothing is left at `path` when the proof fails.

    *Write*: every file is read once, and copied and hashed in the same pass; tensors with an update are replaced by
    W + scale B A (or what DoRA or full training makes of them), a block of rows at a time, summed in float64 and
    rounded once to the checkpoint's type. *Prove*: every file is read back through the operating system. What has no
    update must have the SHA-256 that it had as it came from the base; all else must be within half a unit in the last
    place of the exact sum, which is computed again; and the folder, loaded like any user would load it, must answer
    the probe images as the adapter does.

    The adapter of a quantised base goes into the unquantised weights. Proved is that the merged model is the
    adapter on those; how far its answers are from the adapter on the quantised base is reported beside it, and
    fails nothing: it is the error of the quantisation.

    Args:
        parts: Base and adapters.
        path: Folder of the merged model.
        probe: Images to compare answers on; with an empty list, only the weights are proved. None is refused, unless
            the merge is finished already.
        tolerance: Score difference in nats that counts as noise: an answer may only change where the adapter
            is less sure than this, and the mean difference may only be larger while it is less than half of
            what training changed. Whatever its size, the merged model must be nearer to the adapter than to the base.

    Raises:
        MergeError: The adapter is of a kind that is not merged, or was trained on other weights; the base is
            incomplete; there are no probe images; or the proof fails.
        ImageError: A probe image cannot be read.
        StorageError: The disk is too small, or cannot be written.
    """
    began, target = time.perf_counter(), Path(path)
    if (done := _finished(target, parts, probe)) is not None:
        return done
    if probe is None:
        raise MergeError(
            "there are no photos to compare answers on, for the adapter was not trained in this process; give some, as "
            "probe=data.train.examples[:32], or prove the weights alone with probe=[]"
        )
    photos, plan = Probe(parts, probe), _plan(parts)
    _check_target(target, parts, plan)
    _check_space(target, sum(plan.checkpoint.sizes.values()))
    with (
        _files.atomic_directory(target) as folder,
        crew(pick_device(parts.base.device)) as threads,
        _console.progress("Merging", total=2 * plan.num_pieces) as bar,
    ):
        writing = time.perf_counter()
        written = write(plan.checkpoint, plan.changes, folder, crew=threads, bar=bar)
        proving = time.perf_counter()
        on_disk = threads.movers.submit(_files.sync_tree, folder)
        proof = WeightsProof(plan.checkpoint, plan.changes, written, folder, crew=threads)
        photos.ask_unmerged()
        roundings, untouched = proof.result(bar)
        answers = photos.ask_merged(folder)
        on_disk.result()
        ended = time.perf_counter()
        report = MergeReport(
            **_about_weights(plan, roundings),
            **_about_answers(answers),
            untouched_sha256=untouched,
            task=parts.task,
            write_s=proving - writing,
            prove_s=ended - proving,
            seconds=ended - began,
            base_quantization=parts.base.quantization,
            weights=tuple(weight for _, weight in parts.adapters),
            adapter_fingerprint=parts.fingerprint,
        )
        check(report, tolerance=tolerance)
        report.save(folder / REPORT_FILE)
        write_card(folder, parts, report)
    _tell(report, parts, plan)
    return report


@dataclass(frozen=True)
class _Plan:
    checkpoint: Checkpoint
    changes: Mapping[str, Update]
    modules: Mapping[str, str]

    @property
    def num_pieces(self) -> int:
        return len(self.checkpoint.untouched(frozenset(self.changes))) + len(self.changes)


def _plan(parts: Parts) -> _Plan:
    """Find out what changes, and refuse whatever can be refused before anything is written."""
    folder = parts.folder()
    updates = read_updates(parts.adapters)
    checkpoint = open_checkpoint(folder)
    model = VLM(folder).skeleton()
    names = names_on_disk(updates, checkpoint.tensors, model, base=parts.base.name)
    return _Plan(
        checkpoint=checkpoint,
        changes={names[name]: update for name, update in updates.items()},
        modules={names[name]: name.rpartition(".")[0] for name in updates},
    )


def _about_weights(plan: _Plan, roundings: Mapping[str, Rounding]) -> dict[str, Any]:
    kept, wanted = (sum(getattr(one, what) for one in roundings.values()) for what in ("kept", "wanted"))
    if wanted and not any(one.moved for one in roundings.values()):
        raise MergeError(
            "the adapter's update is so small that every weight rounds back to the base's: the merged model would be "
            "the base. Train longer or with a larger learning rate, or serve the adapter unmerged"
        )
    least = min(roundings, key=lambda name: roundings[name].retained)
    return {
        "changed": tuple(dict.fromkeys(plan.modules.values())),
        "tensors_changed": len(roundings),
        "tensors_untouched": len(plan.checkpoint.tensors) - len(roundings),
        "max_ulps": max(one.max_ulps for one in roundings.values()),
        "retained_delta": kept / wanted if wanted else 1.0,
        "least_retained_delta": roundings[least].retained,
        "least_retained_module": plan.modules[least],
        "size_bytes": plan.checkpoint.tensor_bytes,
    }


def _about_answers(answers: tuple[ProbeAnswer, ...]) -> dict[str, Any]:
    def same(other: str) -> Estimate:
        return wilson(sum(getattr(answer, other) == answer.adapter for answer in answers), len(answers))

    trained = [answer.trained == answer.merged for answer in answers if answer.trained is not None]
    return {
        "agreement": same("merged"),
        "base_agreement": same("base"),
        "max_score_difference": max((answer.merged_difference for answer in answers), default=0.0),
        "answers": answers,
        "trained_agreement": wilson(sum(trained), len(trained)) if trained else None,
    }


def _tell(report: MergeReport, parts: Parts, plan: _Plan) -> None:
    if plan.checkpoint.left_out:
        _console.notice(f"Not part of the model, and not copied: {', '.join(plan.checkpoint.left_out)}.")
    if report.lost is not None:
        _console.notice(f"{report.lost[0].upper()}{report.lost[1:]}.")
    if report.base_quantization is None:
        return
    shift, same = report.quantization_shift, report.trained_agreement
    moved = "" if shift is None else f"; that moves its scores by {shift:.2g} nats (same answer: {same})"
    _console.notice(
        f"The adapter was trained on {report.base_quantization} weights and merged into the unquantised ones of "
        f"{parts.base.unquantized().name}{moved}. Evaluate the merged model, which is another than was trained."
    )


def _finished(target: Path, parts: Parts, probe: Sequence[Example] | None) -> MergeReport | None:
    if not (target / REPORT_FILE).exists():
        return None
    try:
        report = MergeReport.load(target)
        whole = open_checkpoint(target).tensor_bytes == report.size_bytes
    except (MergeError, StorageError):
        # Another version's, which may have proved something else; or a weight file has been lost since.
        return None
    # A merge whose answers were never compared is done again when there is something to compare them on.
    enough = bool(report.answers) or not probe
    return report if whole and enough and report.adapter_fingerprint == parts.fingerprint else None


def _check_target(target: Path, parts: Parts, plan: _Plan) -> None:
    for folder in (plan.checkpoint.folder, *(path for path, _ in parts.adapters)):
        if target.resolve() == folder.resolve():
            raise MergeError(f"{target} is what is merged from, and would be gone; choose another folder")


def _check_space(target: Path, needed: int) -> None:
    existing = next(parent for parent in (target, *target.absolute().parents) if parent.exists())
    disk = shutil.disk_usage(existing)
    # Some file systems do not know how large they are, and say 0.
    if disk.total and disk.free < needed:
        raise StorageError(
            f"merging into {target} needs {needed / 1e9:.1f} GB and {disk.free / 1e9:.1f} GB are free; "
            "free some space or choose another disk"
        )
