"""Sections about training: the plan, the overfit gate, the adapter, and the merge with its proof."""

from __future__ import annotations

from typing import Any

from vlm_tune.report.blocks import Cell, Chart, Check, Checks, Facts, Section, Table, Tokens
from vlm_tune.report.charts import inline_svg
from vlm_tune.report.context import Context, last_part
from vlm_tune.report.sections import section
from vlm_tune.report.words import count, duration, percent, size
from vlm_tune.training import Adapter, AdapterPlan, MergeReport, OverfitReport, TrainingLog

__all__: list[str] = []


@section.register
def _(plan: AdapterPlan, context: Context) -> Section:
    guess = plan.estimates
    rows: list[list[str | Cell]] = [
        [
            f"{row.region} {row.kind}",
            Cell(f"{count(row.hit)} of {count(row.total)}", faint=not row.hit),
            Cell(count(row.parameters) if row.hit else "–", faint=not row.hit),
            Cell(percent(row.share, 3) if row.hit else "–", faint=not row.hit),
        ]
        for row in plan.rows
    ]
    facts = [
        ("Model", last_part(plan.model)),
        ("LoRA", f"r {plan.r}, scale {plan.scale:g}"),
        ("Trained parameters", f"{count(plan.trained_parameters)} ({percent(plan.trained_share, 2)})"),
        ("Memory", f"{guess.memory_gb:.1f} of {guess.device_gb:.0f} GB"),
        ("Time", duration(guess.seconds)),
        ("Cost", str(guess.cost) if guess.cost else "–"),
        ("Device assumed", guess.device),
    ]
    columns = ["Part of the model", "Layers adapted", "Parameters", "Of the model"]
    return Section(
        anchor=context.anchor("plan"),
        key="plan",
        title="Training plan",
        lead="Arithmetic from the model's configuration, before anything was loaded or paid.",
        blocks=[Facts(facts), Table("What gets an adapter", columns, rows)],
        rank=60,
        data=_clean(plan.model_dump(mode="json")),
    )


@section.register
def _(report: OverfitReport, context: Context) -> Section:
    words = {
        "loss": "The loss is about 0",
        "answers": "The answers are right, through the scoring that evaluation uses",
        "swapped": "The answers follow the photo",
        "blanks": "Without a photo there is only chance",
    }
    checks = [
        Check(words[check.name], check.passed, check.detail if check.passed else f"{check.detail}; {check.hint}")
        for check in report.checks
    ]
    return Section(
        anchor=context.anchor("overfit"),
        key="overfit",
        title="Overfit gate",
        lead=f"{report.num_examples} examples, {count(report.num_steps)} steps, {duration(report.seconds)}: "
        "a model that cannot learn a few photos by heart would not learn more.",
        blocks=[Checks(checks)],
        rank=61,
        data={"passed": report.passed, **report.model_dump(mode="json", exclude={"losses"})},
    )


@section.register
def _(adapter: Adapter, context: Context) -> Section:
    log, config = adapter.training, adapter.config
    facts = [
        ("Base model", last_part(adapter.card.base.model)),
        ("Training photos", f"{count(log.num_examples)}, {log.epochs:g} epochs"),
        ("Steps", f"{count(log.num_steps)}, {config.batch_size} photos each"),
        ("Time", f"{duration(log.seconds)} ({log.samples_per_second:.1f} photos/s)"),
        ("Trained parameters", f"{count(log.trained_parameters)} ({percent(log.trained_share, 2)})"),
        (
            "LoRA",
            f"r {config.r}, alpha {config.lora_alpha:g}, {', '.join(config.regions)}",
        ),
        ("Layers adapted", ", ".join(config.kinds)),
        ("Learning rate", f"{config.learning_rate:g}, {config.lr_scheduler}"),
        *([("Photos changed by", config.augment.words)] if config.augment and config.changes_photos else []),
        ("Loss", f"{log.losses[0]:.3f} at first, {log.final_loss:.4f} at last"),
        ("Trained tokens", f"{percent(log.audit.trained_fraction, 1)} of the tokens: the answers"),
    ]
    if log.kept is not None:
        seen = log.kept.accuracy
        facts.append(
            ("Validation", f"{seen.percent()} (n = {seen.n}) after step {count(log.kept_step)}, which was kept")
        )
    anchor = context.anchor("training")
    curve = inline_svg(adapter.plot(), prefix=anchor, label="Training loss by step")
    card = adapter.card.model_dump(mode="json", exclude={"task": True, "training": {"learning_rates": True}})
    return Section(
        anchor=anchor,
        key="adapter",
        title="Training",
        blocks=[Facts(facts), Chart(curve), *_moved(log), _tokens(log)],
        rank=62,
        data={**_clean(card), "fingerprint": adapter.fingerprint},
    )


@section.register
def _(merge: MergeReport, context: Context) -> Section:
    same = merge.agreement
    checks = [
        Check(
            "Only the adapted weights changed",
            True,
            f"{count(merge.tensors_changed)} tensors; {count(merge.tensors_untouched)} equal byte for byte",
        ),
        Check(
            "Rounded once",
            True,
            f"at most {merge.max_ulps:.3f} units in the last place from the exact sum (0.5 is perfect)",
        ),
    ]
    if same.n:
        right = f"{round(same.value * same.n)} of {same.n} probe photos, log-probabilities within"
        detail = f"{right} {merge.max_score_difference:.4f} nats"
        checks.append(Check("Answers as the adapter does", True, detail))
    facts = [
        ("Update kept after rounding", percent(merge.retained_delta, 2)),
        ("Same answer as the base", f"{merge.base_agreement.percent()} (n = {merge.base_agreement.n})"),
        ("Size", size(merge.size_bytes)),
        ("Written in", duration(merge.write_s)),
        ("Proved in", duration(merge.prove_s)),
        ("Time in all", duration(merge.seconds)),
    ]
    return Section(
        anchor=context.anchor("merge"),
        key="merge",
        title="Merge, with proof",
        lead="The merged model is the base plus the adapter. A merge that fails a check leaves nothing.",
        blocks=[Checks(checks), Facts(facts)],
        rank=64,
        data=merge.model_dump(mode="json"),
    )


def _moved(log: TrainingLog) -> list[Table]:
    rows: list[list[str | Cell]] = [
        [row.region, Cell(count(row.num_layers)), Cell(percent(row.mean, 2)), Cell(percent(row.least, 2))]
        for row in log.movement
    ]
    columns = ["Region", "Layers trained", "Update over weights, mean", "least"]
    return [Table("How far each region moved", columns, rows, numeric=True)] if rows else []


def _tokens(log: TrainingLog) -> Tokens:
    caption = f"What the loss sees: {log.audit.headline}. One of them, {log.audit.example_id}:"
    return Tokens(caption, [(span.kind, span.text) for span in log.audit.spans])


def _clean(value: Any) -> Any:
    """Return plain data with the folders taken out of model names."""
    if isinstance(value, dict):
        return {
            key: last_part(inner) if key in ("model", "name") and isinstance(inner, str) else _clean(inner)
            for key, inner in value.items()
        }
    return [_clean(inner) for inner in value] if isinstance(value, list) else value
