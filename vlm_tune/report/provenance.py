"""The section that every report ends with: what is needed to do it again, and to know that it is the same."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from vlm_tune import versions
from vlm_tune.cost import price_of
from vlm_tune.evaluation import CostModel
from vlm_tune.experiments import LearningCurve, SweepResult
from vlm_tune.report.blocks import Block, Facts, Quote, Section, Table
from vlm_tune.report.context import Context
from vlm_tune.training import Adapter

__all__ = ["provenance"]


def _questions(context: Context) -> list[Quote]:
    """Return every prompt that was used, with the systems that got it and what they were shown besides."""
    asked: dict[str, list[str]] = {}
    for system, one in zip(context.scoreboard, context.evaluations, strict=True):
        if one.task is not None:
            prompt = "\n\n".join(filter(None, (one.prompt_note, one.task.render())))
            asked.setdefault(prompt, []).append(system.name)
    if len(asked) == 1:
        return [Quote("The question, as every system got it", prompt) for prompt in asked]
    return [Quote(f"The question, as {', '.join(names)} got it", prompt) for prompt, names in asked.items()]


def provenance(context: Context, results: Sequence[object], *, command: str | None, on: date) -> Section:
    """Return what is needed to do it again: command, question, fingerprints, seeds, prices, versions, machine.

    Args:
        context: What all sections share.
        results: What else is in the report, for its seeds and prices.
        command: What was run; None where nobody said.
        on: The day that prices are to hold on.
    """
    blocks: list[Block] = [*_questions(context)]
    if command:
        blocks.insert(0, Quote("To do it again", command, code=True))
    seeds, prices = _seeds(results), _prices(context, results, on)
    rows = [
        [
            context.systems[at].name,
            one.predictor_fingerprint or "–",
            ", ".join(one.model_versions) or "–",
            one.dataset_fingerprint[:16] or "–",
            one.task.fingerprint if one.task else "–",
        ]
        for at, one in enumerate(context.evaluations)
    ]
    columns = ["System", "Fingerprint", "Model version", "Dataset", "Task"]
    blocks.append(Table("What was evaluated on what", columns, rows))
    if seeds:
        blocks.append(Table("Seeds", ["What", "Seed"], seeds))
    if prices:
        note = "The costs of this page were counted with the prices of the days they were asked on."
        blocks.append(Table(f"Prices on {on}", ["What", "Price", "Source, and when it was read"], prices, note=note))
    written = {**versions.hardware(), **versions.packages()}
    blocks.append(Facts(list(written.items()), "What this report was written with"))
    lead = "Equal fingerprints mean equal weights and settings, equal data, the same question."
    data = {"command": command, "seeds": dict(seeds), "prices": [list(row) for row in prices]}
    anchor = context.anchor("provenance")
    return Section(anchor, "Provenance", blocks, rank=90, lead=lead, key="provenance", data=data)


def _seeds(results: Sequence[object]) -> list[tuple[str, str]]:
    found = [(f"Training of {one.name}", str(one.config.seed)) for one in results if isinstance(one, Adapter)]
    for curve in (one for one in results if isinstance(one, LearningCurve)):
        seeds = sorted({point.seed for point in curve.points})
        found.append((f"Learning curve {curve.name}".strip(), ", ".join(map(str, seeds))))
    found += [(f"Search for settings of {one.model}", str(one.seed)) for one in results if isinstance(one, SweepResult)]
    return found


def _prices(context: Context, results: Sequence[object], on: date) -> list[tuple[str, str, str]]:
    """Return every price that is known to have been used, with its source and the day it was read."""
    rows: dict[str, tuple[str, str, str]] = {}
    for one in context.evaluations:
        for model in one.model_versions if one.cost_usd else ():
            price = price_of(model, on=on)
            if price is not None:
                each = f"${price.input_usd_per_million:g} in, ${price.output_usd_per_million:g} out, a million tokens"
                rows[model] = (model, each, price.provenance)
    for costs in (one for one in results if isinstance(one, CostModel)):
        rows["api"] = ("An image at the API", str(costs.api), costs.api.basis)
        if costs.batch is not None:
            rows["batch"] = ("An image at the API in batch mode", str(costs.batch), costs.batch.basis)
        if costs.tuned is not None:
            rows["gpu"] = ("An image of the tuned model", str(costs.tuned), costs.tuned.basis)
        if costs.training is not None:
            rows["training"] = ("Training, once", str(costs.training), costs.training.basis)
        if costs.labelling is not None:
            rows["labelling"] = ("Labelling, once", str(costs.labelling), costs.labelling.basis)
    return list(rows.values())
