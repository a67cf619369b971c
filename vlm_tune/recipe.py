"""The whole experiment as one typed, resumable object."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, ValidationError

from vlm_tune import _console, _files
from vlm_tune.data import Dataset
from vlm_tune.errors import RecipeError, nearest
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.leakage import LeakageChecker, LeakageReport
from vlm_tune.predictors import Baseline, Gemini
from vlm_tune.profiling import Profile, profile
from vlm_tune.records import Record
from vlm_tune.report import Report
from vlm_tune.task import Task
from vlm_tune.training import Adapter, LoRATrainer, MergeReport, OverfitReport, TrainConfig
from vlm_tune.vlm import VLM

__all__ = ["DataSource", "Opponent", "Recipe", "Result"]

_T = TypeVar("_T")


class DataSource(Record):
    """Where the labelled photos are, and how they are split when they are not split already."""

    folder: Path | None = None
    """A folder of class folders, or of split folders with class folders."""
    table: Path | None = None
    """A CSV, JSONL or Parquet table with the columns image and label."""
    group: str | None = None
    """For a folder: a regular expression whose one group, found in the path, names what stays together.
    For a table: the column that does."""
    test: float = Field(default=0.25, gt=0, lt=1)
    """Share of the examples held out, unless the source is split already."""
    seed: int = 0
    """Seed of the split."""

    def read(self, task: Task) -> Dataset:
        """Read the examples and split them unless they are."""
        if (self.folder is None) == (self.table is None):
            raise RecipeError("data: give either folder or table")
        if self.folder is not None:
            data = Dataset.from_folder(self.folder, task=task, group=self.group)
        else:
            assert self.table is not None  # noqa: S101  (the check above leaves nothing else)
            data = Dataset.from_table(self.table, task=task, group=self.group or "group")
        return data if data.has_split("test") else data.split(test=self.test, seed=self.seed)


class Opponent(Record):
    """A closed model to compare with."""

    gemini: str
    """Gemini model id."""
    base_url: str | None = None
    """Another address than Google's."""


class Recipe(Record):
    """The whole experiment: look, find leaks, set baselines, overfit, fine-tune, merge, evaluate, compare, report.

    Every stage leaves its result in `run_dir`; a stage whose inputs are unchanged is not done again, so a
    killed run goes on where it stopped.

    Example:
        >>> recipe = Recipe(
        ...     task=Task(prompt="Which damage?", classes=("crack", "dent", "scratch")),
        ...     data=DataSource(folder="photos"),
        ...     model="Qwen/Qwen3-VL-8B-Instruct",
        ...     run_dir="runs/damage",
        ... )
        >>> result = recipe.run()  # doctest: +SKIP
    """

    task: Task
    """The question."""
    data: DataSource
    """The photos."""
    model: str
    """Hub id or folder of the open model."""
    run_dir: Path
    """Where everything is written."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """How to fine-tune."""
    remedy: Literal["regroup", "drop_train", "drop_test"] = "regroup"
    """What to do with leaked test images."""
    overfit: bool = True
    """Whether ten examples must be learnt by heart before the real training."""
    opponents: tuple[Opponent, ...] = ()
    """Closed models to compare with; each needs its key in the environment."""
    title: str | None = None
    """Title of the report."""

    @classmethod
    def from_file(cls, path: Path | str) -> Recipe:
        """Read a recipe from a YAML file; relative paths in it are relative to the file.

        Raises:
            RecipeError: The file is missing, is no YAML or has a field that is wrong; the error names it.
        """
        import yaml

        source = Path(path)
        try:
            content = yaml.safe_load(source.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise RecipeError(f"{source} does not exist") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RecipeError(f"{source} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            raise RecipeError(f"{source} should hold the fields {', '.join(cls.model_fields)}")
        try:
            recipe = cls.model_validate(content)
        except ValidationError as error:
            raise RecipeError(_explain(source, error)) from error
        return recipe._anchored(source.parent)

    def _anchored(self, root: Path) -> Recipe:
        data = self.data.model_copy(
            update={
                name: root / value
                for name, value in (("folder", self.data.folder), ("table", self.data.table))
                if value is not None
            }
        )
        model = str(root / self.model) if (root / self.model).is_dir() else self.model
        return self.model_copy(update={"data": data, "model": model, "run_dir": root / self.run_dir})

    def run(self) -> Result:
        """Do everything that is not done yet and write the report.

        Raises:
            VlmTuneError: A stage failed; what was done before it is kept.
        """
        return _Run(self).result()

    def check(self) -> tuple[Profile, LeakageReport]:
        """Look at the data and find the leaks."""
        run = _Run(self)
        return run.profile, run.leakage

    def fit(self) -> Adapter:
        """Do everything up to the trained adapter."""
        return _Run(self).adapter

    def trainer(self) -> LoRATrainer:
        """Return the trainer, for `plan`."""
        return LoRATrainer(VLM(self.model), self.train)

    def dataset(self) -> Dataset:
        """Return the dataset after the leaks are resolved."""
        return _Run(self).clean


class Result(Record):
    """What a finished recipe hands over."""

    model_config = {"arbitrary_types_allowed": True}

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

    def show(self) -> None:
        """Print the scoreboard and the verdicts."""
        Report(self.evaluations, sections=self.comparisons).show()


class _Run:
    """One pass over the stages; each is a property that loads what is kept or makes and keeps it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.dir = recipe.run_dir
        self.base = VLM(recipe.model)
        self.trainer = LoRATrainer(self.base, recipe.train)

    @cached_property
    def data(self) -> Dataset:
        return self.recipe.data.read(self.recipe.task)

    @cached_property
    def profile(self) -> Profile:
        _console.stage("Look at the data")
        found = profile(self.data)
        readable = self.data.without(found.unreadable_ids)
        if len(readable) < len(self.data):
            _console.notice(f"{len(self.data) - len(readable)} photos do not decode and are left out")
        self.data = readable
        return found

    @cached_property
    def leakage(self) -> LeakageReport:
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
        return self.leakage.resolve(self.data, remedy=self.recipe.remedy)

    @cached_property
    def evaluator(self) -> Evaluator:
        return Evaluator(self.clean.test, run_dir=self.dir)

    @cached_property
    def floor(self) -> Evaluation:
        _console.stage("Baselines")
        return self.evaluator.run(Baseline.majority(self.clean.train))

    @cached_property
    def before(self) -> Evaluation:
        return self.evaluator.run(self.base)

    @cached_property
    def opponents(self) -> list[Evaluation]:
        wanted = self.recipe.opponents
        if wanted and not os.environ.get("GEMINI_API_KEY"):
            _console.notice("Gemini is left out of the table: set GEMINI_API_KEY to add it")
            return []
        return [self.evaluator.run(Gemini(o.gemini, base_url=o.base_url)) for o in wanted]

    @cached_property
    def overfit(self) -> OverfitReport | None:
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
        return report

    @cached_property
    def adapter(self) -> Adapter:
        _ = self.overfit
        _console.stage("Fine-tune with LoRA")
        return self.trainer.fit(self.clean.train, run_dir=self.dir)

    @cached_property
    def merged(self) -> VLM:
        adapter = self.adapter
        _console.stage("Merge with proof")
        return adapter.merge(self.dir / "merged")

    @cached_property
    def after(self) -> Evaluation:
        merged = self.merged
        _console.stage("Evaluate the tuned model")
        return self.evaluator.run(merged)

    def result(self) -> Result:
        evaluations = (self.floor, self.before, *self.opponents)
        evaluations = (*evaluations, self.after)
        rivals = [self.before, *self.opponents]
        comparisons = tuple(Comparison(candidate=self.after, reference=rival) for rival in rivals)
        _console.stage("Report")
        merge = MergeReport.load(self.dir / "merged")
        parts = (self.profile, self.leakage, *comparisons, self.overfit, self.adapter, merge)
        sections = [part for part in parts if part is not None]
        report = Report(evaluations, sections=sections, title=self.recipe.title)
        for evaluation in evaluations:
            evaluation.save(self.dir / "evaluations" / f"{_slug(evaluation.name)}.parquet")
        return Result(
            evaluations=evaluations,
            comparisons=comparisons,
            leakage=self.leakage,
            merged=self.dir / "merged",
            report=report.save(self.dir / "report.html"),
        )

    def _kept(
        self, name: str, *, inputs: list[str], load: Callable[[Path], _T], make: Callable[[], _T]
    ) -> _T:
        """Return a stage's kept result when it was made from the same inputs, else make and keep it."""
        path = self.dir / f"{name}.json"
        key_path = self.dir / "stages" / f"{name}.json"
        key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
        if path.exists() and key_path.exists() and _files.read_json(key_path) == key:
            _console.notice(f"{name}: done before, read from {path}")
            return load(path)
        made = make()
        made.save(path)  # type: ignore[attr-defined]
        _files.write_json(key_path, key)
        return made


def _content(data: Dataset) -> str:
    digest = hashlib.sha256(data.fingerprint.encode())
    for example in data:
        digest.update(example.content_hash.encode())
    return digest.hexdigest()


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in name).strip("-.")


def _explain(source: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        owner = Recipe if len(first["loc"]) == 1 else {"data": DataSource, "train": TrainConfig}.get(str(first["loc"][0]))
        known = tuple(owner.model_fields) if owner is not None else tuple(Task.model_fields)
        close = nearest(str(first["loc"][-1]), known)
        hint = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"
        return f"{source}: {place} is not a field; {hint}"
    return f"{source}: {place}: {first['msg']}"
