"""The merged folder's model card: what it is made of, and what was proved."""

from __future__ import annotations

from pathlib import Path

from vlm_tune.training.merging.merge_report import REPORT_FILE, MergeReport
from vlm_tune.training.merging.parts import Parts
from vlm_tune.vlm import card

__all__ = ["write_card"]


def write_card(folder: Path, parts: Parts, report: MergeReport) -> None:
    """Write `README.md`; the base's own is about another model.

    Args:
        folder: The merged model.
        parts: Base and adapters.
        report: What was proved.

    Raises:
        StorageError: The disk is full.
    """
    base, same = parts.base.unquantized(), report.agreement
    made = {
        "base": f"{base.name} ({parts.source})",
        "adapters": f"{report.adapter_fingerprint}, weights {', '.join(f'{weight:g}' for weight in report.weights)}",
        "question": parts.task.prompt,
        "answers": ", ".join(parts.task.classes[:20]) + (", ..." if len(parts.task.classes) > 20 else ""),
        "pixels of a photo": f"at most {parts.task.max_pixels:,}",
    }
    proved = {
        "tensors changed": f"{report.tensors_changed}, at most {report.max_ulps:.3f} ulp from the exact sum",
        "tensors untouched": f"{report.tensors_untouched}, with the SHA-256 of the base's",
        "update kept after rounding": f"{100 * report.retained_delta:.2f} %",
        "same answer as the adapter": str(same) if same.n else "not compared",
        "same answer as the base": str(report.base_agreement) if same.n else "not compared",
    }
    card.write_card(
        folder,
        f"{base.name}-tuned",
        base_model=base.model if base.folder is None else card.base_model_of(base.folder),
        relation="finetune",
        tags=["lora"],
        sections={"Made of": card.rows(made), f"Proved while merging (`{REPORT_FILE}`)": card.rows(proved)},
    )
