"""A report as a model card for the Hub: the verdict, its limits, and how the model came about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from vlm_tune import versions
from vlm_tune.evaluation import Comparison, Evaluation
from vlm_tune.report.context import last_part
from vlm_tune.report.words import about, count, duration, money, p_value, percent
from vlm_tune.training import Adapter, MergeReport
from vlm_tune.vlm.card import plain, rows

__all__ = ["model_card"]

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_CLASSES = 30
_T = TypeVar("_T")


def model_card(
    evaluations: Sequence[Evaluation],
    results: Sequence[object],
    *,
    model: Evaluation,
    answer: str,
    remarks: Iterable[str],
    command: str | None = None,
) -> str:
    """Return Markdown with the front matter that the Hub reads.

    Args:
        evaluations: The systems of the scoreboard.
        results: What else is in the report; an `Adapter` and a `MergeReport` say how the model was made.
        model: The evaluation of the model that the card is about.
        answer: The report's answer.
        remarks: What else a reader in a hurry should know.
        command: What was run.
    """
    adapters, merges = _of(Adapter, results), _of(MergeReport, results)
    comparisons = _of(Comparison, results)
    trained = adapters[0] if adapters else None
    parts = {
        "Verdict": "\n\n".join(map(_plain, [answer, *remarks])),
        "Results": _results(evaluations),
        "Limits": "\n".join(f"- {_plain(line)}" for line in _limits(model, comparisons)),
        "Question": _question(model),
        "Training": rows(_training(trained)) if trained else "",
        "Merge": rows(_merge(merges[0])) if merges else "",
        "To do it again": _again(model, trained, command),
    }
    text = [f"---\n{_front(model, trained)}\n---", f"# {_plain(model.name)}"]
    text += [f"## {heading}\n\n{words}" for heading, words in parts.items() if words]
    return "\n\n".join(text) + "\n"


def _plain(text: str) -> str:
    """Return text that is no link and no picture either, whatever a label or a file is called."""
    return plain(text).replace("](", r"]\(")


def _of(kind: type[_T], results: Iterable[object]) -> list[_T]:
    return [one for one in results if isinstance(one, kind)]


def _front(model: Evaluation, adapter: Adapter | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    base = adapter.card.base.model if adapter else ""
    known = base if _HUB_ID.fullmatch(base) else None
    scores = []
    if model.coverage >= model.min_coverage:
        kinds = (("accuracy", model.measure, model.accuracy), ("f1", "macro F1", model.macro_f1))
        scores = [
            EvalResult(
                task_type="image-classification",
                dataset_type="custom",
                dataset_name="test split",
                metric_type=kind,
                metric_name=name,
                metric_value=round(found.value, 4),
            )
            for kind, name, found in kinds
        ]
    about_it = ModelCardData(
        base_model=known,
        base_model_relation="finetune" if known else None,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["vlm-tune", "image-classification"],
        model_name=model.name,
        eval_results=scores or None,
    )
    text: str = about_it.to_yaml()
    return text


def _results(evaluations: Sequence[Evaluation]) -> str:
    lines = [f"| system | {evaluations[0].measure}, 95 % interval | photos | time | cost |", "|---|---|---|---|---|"]
    for one in evaluations:
        low, high = (percent(end, 1) for end in one.accuracy_bounds)
        enough = one.coverage >= one.min_coverage
        figure = one.accuracy.percent() if enough else f"too few answers: between {low} and {high}"
        n = one.num_examples - one.outcomes["failed"]
        lines.append(
            f"| {_plain(one.name)} | {figure} | {count(n)} | {duration(one.wall_s)} | {plain(money(one.cost_usd))} |"
        )
    return "\n".join(lines)


def _limits(model: Evaluation, comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield (
        f"Measured on {count(model.num_examples)} test photos from the same source as the training photos; photos "
        "from elsewhere may look different, and accuracy on them is not known."
    )
    some = ", ".join(model.classes[:_MOST_CLASSES])
    more = f" and {count(len(model.classes) - _MOST_CLASSES)} more" if len(model.classes) > _MOST_CLASSES else ""
    yield f"It tells {count(len(model.classes))} classes apart and knows no other: {some}{more}."
    worst = [(recall, label) for label, recall in model.per_class().items() if recall.n]
    if len(worst) > 1:
        recall, label = min(worst, key=lambda pair: pair[0].value)
        yield f"Weakest class: {label}, found in {recall.percent()} of its {count(recall.n)} photos."
    for one in comparisons:
        if one.verdict == "not_established":
            needed = f"about {about(one.images_needed)} test photos would" if one.images_needed else "no number would"
            yield (
                f"Which of {one.candidate.name} and {one.reference.name} is better is not established "
                f"({p_value(one.p_value)}); {needed} settle it."
            )


def _question(model: Evaluation) -> str:
    if model.task is None:
        return ""
    prompt = model.task.render()
    # A fence longer than any inside cannot be ended by the prompt.
    fence = "`" * max(3, 1 + max(map(len, re.findall(r"`+", prompt)), default=0))
    return f"{fence}text\n{prompt}\n{fence}"


def _training(adapter: Adapter) -> Mapping[str, str]:
    log, config = adapter.training, adapter.config
    return {
        "base model": last_part(adapter.card.base.model),
        "photos": f"{count(log.num_examples)}, {log.epochs:g} epochs",
        "LoRA": f"r {config.r}, alpha {config.lora_alpha:g}, {', '.join(config.regions)}; {', '.join(config.kinds)}",
        "learning rate": f"{config.learning_rate:g}, {config.lr_scheduler}",
        "time": duration(log.seconds),
        "loss": f"{log.losses[0]:.3f} at first, {log.final_loss:.4f} at last",
    }


def _merge(merge: MergeReport) -> Mapping[str, str]:
    found = {
        "tensors": f"{count(merge.tensors_changed)} changed, {count(merge.tensors_untouched)} equal byte for byte",
        "rounding": f"at most {merge.max_ulps:.3f} units in the last place",
        "update kept after rounding": percent(merge.retained_delta, 2),
    }
    same = merge.agreement
    return found | ({"same answers as the adapter": f"{same.percent()} (n = {same.n})"} if same.n else {})


def _again(model: Evaluation, adapter: Adapter | None, command: str | None) -> str:
    known = {
        "predictor": model.predictor_fingerprint,
        "dataset": model.dataset_fingerprint[:16],
        "task": model.task.fingerprint if model.task else "",
        "seed": str(adapter.config.seed) if adapter else "",
        **{name: version for name, version in versions.packages().items() if version != "not installed"},
    }
    table = rows({name: value for name, value in known.items() if value})
    return f"```bash\n{command}\n```\n\n{table}" if command and "```" not in command else table
