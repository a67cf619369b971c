"""`serving_check`: a folder, looked at with a server's eyes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlm_tune import _files
from vlm_tune.errors import VlmTuneError
from vlm_tune.serving import folder as looking
from vlm_tune.serving.budget import longest_prompt, processor_settings
from vlm_tune.serving.commands import Served, server_commands
from vlm_tune.serving.records import Finding, RuntimeAdapter, ServingCheck
from vlm_tune.serving.runtime import runtime_adapters, trained_parameters
from vlm_tune.task import Task
from vlm_tune.training import Adapter, MergeReport
from vlm_tune.training.merging.merge_report import REPORT_FILE
from vlm_tune.vlm import VLM

if TYPE_CHECKING:
    from pydantic import JsonValue
    from transformers import PreTrainedConfig, ProcessorMixin

__all__ = ["serving_check"]

_UNKNOWN = Task(prompt="?", classes=("yes", "no"))
_ROOM = 3072
"""Tokens beside the longest prompt: the 2,048 that `OpenAICompatible` tries a server with, and a longer question."""
_STEP = 1024


def serving_check(
    folder: Path | str,
    *,
    task: Task | None = None,
    adapter: Path | str | None = None,
    merged: Path | str | None = None,
    name: str | None = None,
) -> ServingCheck:
    """Look at a merged model, or at an adapter, with a server's eyes; no weights are loaded.

    The result has the commands that serve the merged model with vLLM and SGLang on the same pixels, chat template and
    number format as in training; what a server would trip over in the folder; and what would be lost if the adapter
    were loaded at run time instead.

    Args:
        folder: A merged model, or an adapter.
        task: The question, for its image budget; None takes the one that the adapter was trained for.
        adapter: The adapter that a merged model was made of; None looks for it in `adapter` beside the model.
        merged: Where an adapter's merged model is or will be; None takes `merged` beside the adapter.
        name: What requests will call the model; None takes the folder's name.

    Raises:
        ModelError: The folder holds no model, or the adapter's base cannot be read.
        AdapterError: The adapter does not belong to its base, or its weights cannot be read.
        StorageError: The folder's adapter was not trained by this library.

    Examples:
        >>> from vlm_tune import demo
        >>> check = serving_check(demo.model_path(), task=demo.task(), name="damage")
        >>> check.ok, check.command("vllm").url
        (True, 'http://127.0.0.1:8000/v1')
    """
    sources = _sources(Path(folder), adapter=adapter, merged=merged)
    asked = task or sources.task
    seen = _look(sources.model, asked or _UNKNOWN)
    findings = [*seen.findings, *_about_origin(sources, asked)]
    served = Served(
        model=sources.merged,
        name=name or sources.merged.name,
        dtype=seen.dtype,
        settings=seen.settings,
        context=seen.context,
        template=seen.template,
        video=getattr(sources.model.config, "video_token_id", None) is not None,
        own_end=seen.own_end,
    )
    return ServingCheck(
        folder=Path(folder),
        kind="merged" if sources.merged == Path(folder) else "adapter",
        model=sources.merged,
        architecture=sources.model.config.model_type,
        dtype=seen.dtype,
        max_pixels=(asked or _UNKNOWN).max_pixels,
        processor_settings=seen.settings,
        commands=server_commands(served),
        runtime=_runtime(sources),
        findings=tuple(sorted(findings, key=lambda finding: finding.level)),
    )


@dataclass(frozen=True)
class _Sources:
    """What a check goes by."""

    merged: Path
    """Where the merged model is or will be."""
    model: VLM
    """The merged model; the base where that is not there yet."""
    adapter: Adapter | None
    """The adapter it is made of, where that is known."""
    report: MergeReport | None
    """What its merge proved."""

    @property
    def task(self) -> Task | None:
        """The question the model was trained for."""
        if self.adapter is not None:
            return self.adapter.task
        return self.report.task if self.report is not None else None


def _sources(folder: Path, *, adapter: Path | str | None, merged: Path | str | None) -> _Sources:
    if (folder / "adapter_config.json").exists():
        origin = Adapter.load(folder)
        target = Path(merged) if merged is not None else folder.parent / "merged"
        report = _report(target)
        there = report is not None and report.adapter_fingerprint == origin.fingerprint
        return _Sources(target, VLM(target) if there else origin.base.unquantized(), origin, report if there else None)
    model = VLM(folder)
    report = _report(folder)
    beside = _origin(report, Path(adapter) if adapter is not None else folder.parent / "adapter")
    return _Sources(folder, model, beside, report)


def _report(folder: Path) -> MergeReport | None:
    try:
        return MergeReport.load(folder) if (folder / REPORT_FILE).exists() else None
    except VlmTuneError:
        return None


def _origin(report: MergeReport | None, adapter: Path) -> Adapter | None:
    """Return the adapter that a merged model was made of, if it is there."""
    if report is None or not (adapter / "adapter_config.json").exists():
        return None
    try:
        found = Adapter.load(adapter)
        return found if found.fingerprint == report.adapter_fingerprint else None
    except VlmTuneError:
        # Its base has been moved, or it is not ours: the merged model stands by itself.
        return None


@dataclass(frozen=True)
class _Seen:
    """What one look at a model's files told."""

    findings: tuple[Finding, ...]
    dtype: str
    settings: dict[str, JsonValue]
    context: int | None
    template: bool
    own_end: bool


def _look(model: VLM, task: Task) -> _Seen:
    files, config, stored = _files_of(model), model.config, model.folder is not None
    findings = looking.check_weights(files, config) if stored else []
    processor, about_processor = looking.check_processor(files)
    findings += about_processor
    dtype = looking.stored_dtype(files, config)
    template = (files / "chat_template.jinja").exists()
    if processor is None or processor.chat_template is None:
        return _Seen(tuple(findings), dtype, {}, None, template, own_end=False)
    findings += looking.check_generation(files, config, processor)
    settings = processor_settings(processor, task.max_pixels)
    context = _context(processor, config, task, settings)
    own_end = looking.ends_by_itself(processor)
    return _Seen(tuple(findings), dtype, settings, context, template, own_end)


def _context(
    processor: ProcessorMixin, config: PreTrainedConfig, task: Task, settings: dict[str, JsonValue]
) -> int | None:
    needed = longest_prompt(processor, task, task.max_pixels, settings) + _ROOM
    most: Any = getattr(config.get_text_config(), "max_position_embeddings", None)
    rounded = math.ceil(needed / _STEP) * _STEP
    # Models take hundreds of thousands of tokens, for which a small GPU has no memory and vLLM does not start.
    return None if most is not None and rounded >= most else rounded


def _files_of(model: VLM) -> Path:
    """Return the folder of a model's small files, fetched from the Hub where the model is an id."""
    if model.folder is not None:
        return model.folder
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.jinja", "*.txt", "*.model"]
    return Path(snapshot_download(model.model, revision=model.revision, allow_patterns=wanted))


def _about_origin(sources: _Sources, task: Task | None) -> list[Finding]:
    found = []
    if sources.report is None and sources.adapter is not None:
        what = f"the adapter has not been merged into {sources.merged}"
        found.append(Finding(level="error", what=what, next_step=f"Adapter.load(...).merge({str(sources.merged)!r})"))
    elif sources.report is None:
        what = f"{sources.merged} has no {REPORT_FILE}, so nothing proves what its weights are"
        found.append(Finding(level="warning", what=what, next_step="serve what Adapter.merge wrote"))
    if task is None:
        what = f"nothing says which image budget the model was trained with; {_UNKNOWN.max_pixels:,} pixels are assumed"
        found.append(Finding(level="warning", what=what, next_step="pass task="))
    return found


def _runtime(sources: _Sources) -> tuple[RuntimeAdapter, ...]:
    if sources.adapter is not None:
        settings: dict[str, Any] = _files.read_json(sources.adapter.path / "adapter_config.json")
        return runtime_adapters(trained_parameters(sources.adapter.path), sources.model.skeleton(), settings)
    return () if sources.report is None else runtime_adapters(sources.report.changed, sources.model.skeleton(), {})
