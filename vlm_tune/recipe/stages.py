"""The stages of a recipe, each done once: what is finished and has unchanged inputs is read back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from vlm_tune import _console, _files, _processes
from vlm_tune.data import Dataset
from vlm_tune.errors import PredictorError, StorageError
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.leakage import LeakageChecker, LeakageReport
from vlm_tune.predictors import Baseline, Gemini
from vlm_tune.profiling import Profile, profile
from vlm_tune.report import Report
from vlm_tune.training import Adapter, LoRATrainer, MergeReport, OverfitReport
from vlm_tune.vlm import VLM

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vlm_tune.recipe.recipe import Recipe

__all__ = ["KEPT", "Result", "Stages"]

KEPT = "recipe.json"
"""Where a run keeps what it is a run of."""


class _Keepable(Protocol):
    def save(self, path: Path) -> Path: ...


_T = TypeVar("_T", bound=_Keepable)


@dataclass(frozen=True)
class Result(_console.Shown):
    """What a finished recipe hands over."""

    evaluations: tuple[Evaluation, ...]
    """Every system on the same test images: floor, base, opponents, tuned."""
    comparisons: tuple[Comparison, ...]
    """Tuned against base, then against every opponent."""
    leakage: LeakageReport
    """What the leak check found before it was resolved."""
    merged: Path
    """Folder of the merged model."""
    report: Path
    """The HTML report; report.json is beside it."""

    @property
    def tuned(self) -> Evaluation:
        """The merged model's evaluation."""
        return self.evaluations[-1]

    def _rich(self) -> RenderableType:
        return Report(self.evaluations, sections=self.comparisons)._rich()


class Stages:
    """One pass over the stages; each is a property that loads what is kept or makes and keeps it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.dir = recipe.run_dir
        self.base = VLM(recipe.model)
        self.trainer = LoRATrainer(self.base, recipe.train)

    @cached_property
    def data(self) -> Dataset:
        """The examples as they were read; after `profile`, without those that do not decode."""
        return self.recipe.data.read(self.recipe.task)

    @cached_property
    def profile(self) -> Profile:
        """A look at every photo."""
        _console.stage("Look at the data")
        # Copies are the next stage's matter: it looks for them across splits and inside.
        found = profile(self.data, duplicates=False)
        readable = self.data.without([file.example_id for file in found.unreadable])
        if len(readable) < len(self.data):
            _console.notice(f"{len(self.data) - len(readable)} photos do not decode and are left out")
        self.data = readable
        _console.notice(f"{len(readable)} photos of {len(readable.task.classes)} classes")
        return found

    @cached_property
    def leakage(self) -> LeakageReport:
        """The leaks between training and test."""
        _ = self.profile
        _console.stage("Find leaks between training and test")
        return self._kept(
            "leakage",
            inputs=[_content(self.data)],
            load=LeakageReport.load,
            make=lambda: LeakageChecker().check(self.data),
        )

    @cached_property
    def clean(self) -> Dataset:
        """The dataset after the leaks are resolved."""
        leaks = self.leakage
        clean = leaks.resolve(self.data, strategy=self.recipe.remedy)
        _console.notice(
            f"{leaks.num_compared:,} pairs compared, {len(leaks.leaked_test_ids)} test photos leak; "
            f"now {len(clean.train)} for training, {len(clean.test)} for the test"
        )
        return clean

    @cached_property
    def evaluator(self) -> Evaluator:
        """Asks every system about the same test photos."""
        return Evaluator(self.clean.test, run_dir=self.dir)

    @cached_property
    def floor(self) -> Evaluation:
        """The majority guess."""
        evaluator = self.evaluator
        _console.stage("Baselines")
        return _told(evaluator.run(Baseline.majority(self.clean.train)))

    @cached_property
    def before(self) -> Evaluation:
        """The base model."""
        return _told(self.evaluator.run(self.base))

    @cached_property
    def opponents(self) -> list[Evaluation]:
        """The closed models that can be asked now; the others are named and left out."""
        asked = []
        for opponent in self.recipe.opponents:
            if not os.environ.get("GEMINI_API_KEY"):
                _console.notice(f"{opponent.gemini} is left out: set GEMINI_API_KEY to add it")
                continue
            try:
                gemini = Gemini(opponent.gemini, base_url=opponent.base_url)
                asked.append(_told(self.evaluator.run(gemini)))
            except PredictorError as error:
                # Its answers so far are kept; the training need not wait for a server.
                _console.notice(f"{opponent.gemini} is left out, run again to add it: {error}")
        return asked

    @cached_property
    def overfit(self) -> OverfitReport | None:
        """The gate of ten examples; None when the recipe skips it."""
        if not self.recipe.overfit:
            return None
        _console.stage("Overfit ten examples")
        report = self._kept(
            "overfit",
            inputs=[_content(self.clean.train), self.base.fingerprint, self.recipe.train.model_dump_json()],
            load=OverfitReport.load,
            make=lambda: self.trainer.overfit(self.clean.train),
        )
        report.raise_if_failed()
        _console.notice("passed: loss about 0, every answer right, and the answers follow the photos")
        return report

    @cached_property
    def adapter(self) -> Adapter:
        """The trained adapter."""
        _ = self.overfit
        _console.stage("Fine-tune with LoRA")
        validation = self.clean.validation if self.clean.has_split("validation") else None
        adapter = self.trainer.fit(self.clean.train, validation=validation, run_dir=self.dir)
        log = adapter.training
        _console.notice(f"{log.num_steps} steps in {log.seconds:.0f} s, loss {log.final_loss:.3f}; {adapter.path}")
        return adapter

    @cached_property
    def merged(self) -> VLM:
        """The merged model."""
        adapter = self.adapter
        _console.stage("Merge with proof")
        merged = adapter.merge(self.dir / "merged")
        proof = MergeReport.load(self.dir / "merged")
        _console.notice(
            f"{proof.tensors_changed} tensors changed and within {proof.max_ulps:.3f} ulp of the exact sum, "
            f"{proof.tensors_untouched} untouched; {self.dir / 'merged'}"
        )
        return merged

    @cached_property
    def after(self) -> Evaluation:
        """The merged model, evaluated."""
        merged = self.merged
        _console.stage("Evaluate the tuned model")
        return _told(self.evaluator.run(merged))

    def result(self, *, command: str) -> Result:
        """Do everything that is left and write the report, which says by which command it is done again."""
        _processes.by_one(self.recipe.save)(self.dir / KEPT)
        evaluations = (self.floor, self.before, *self.opponents, self.after)
        comparisons = tuple(Comparison(candidate=self.after, reference=e) for e in evaluations[1:-1])
        _console.stage("Report")
        merge = MergeReport.load(self.dir / "merged")
        parts = (self.profile, self.leakage, *comparisons, self.overfit, self.adapter, merge)
        sections = [part for part in parts if part is not None]
        report = Report(evaluations, sections=sections, title=self.recipe.title, command=command)
        for evaluation in evaluations:
            _processes.by_one(evaluation.save)(self.dir / "evaluations" / f"{_slug(evaluation.name)}.parquet")
        return Result(
            evaluations=evaluations,
            comparisons=comparisons,
            leakage=self.leakage,
            merged=self.dir / "merged",
            report=report.save(self.dir / "report.html"),
        )

    def _kept(self, name: str, *, inputs: list[str], load: Callable[[Path], _T], make: Callable[[], _T]) -> _T:
        """Return a stage's kept result when it was made from the same inputs, else make and keep it."""
        path = self.dir / f"{name}.json"
        key_path = self.dir / "stages" / f"{name}.json"
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        try:
            if _processes.same(path.exists() and key_path.exists() and _files.read_json(key_path) == key):
                found = load(path)
                _console.notice(f"{name}: done before, read from {path}")
                return found
        except StorageError as error:
            # Written by another version, or spoilt; what it was made from is still there.
            _console.notice(f"{name}: done anew, because {error}")
        made = make()
        _processes.by_one(made.save)(path)
        _processes.by_one(_files.write_json)(key_path, key)
        return made


def _told(evaluation: Evaluation) -> Evaluation:
    _console.notice(f"{evaluation.name}: {evaluation.headline}")
    return evaluation


def _content(data: Dataset) -> str:
    digest = hashlib.sha256(data.fingerprint.encode())
    for example in data:
        digest.update(example.content_hash.encode())
    return digest.hexdigest()


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name).strip("-.")
