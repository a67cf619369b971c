"""`Recipe`: what the experiment is, in a file or in Python."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from vlm_tune import _files
from vlm_tune.data import Dataset
from vlm_tune.errors import RecipeError, VlmTuneError, nearest
from vlm_tune.leakage import LeakageReport
from vlm_tune.profiling import Profile
from vlm_tune.recipe.stages import KEPT, Result, Stages
from vlm_tune.records import Record
from vlm_tune.task import Task
from vlm_tune.training import Adapter, LoRATrainer, TrainConfig
from vlm_tune.vlm import VLM

__all__ = ["DataSource", "Opponent", "Recipe"]


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
    validation: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share that is answered after every epoch of training, for `keep` and `patience`; unless it is split already."""
    seed: int = 0
    """Seed of the split."""

    def read(self, task: Task) -> Dataset:
        """Read the examples and split them unless they are."""
        if (self.folder is None) == (self.table is None):
            raise RecipeError("data: give either folder or table")
        if self.folder is not None:
            data = Dataset.from_folder(self.folder, task=task, group=self.group)
        else:
            assert self.table is not None
            data = Dataset.from_table(self.table, task=task, group=self.group or "group")
        if data.has_split("test"):
            return data
        return data.split(test=self.test, validation=self.validation, seed=self.seed)


class Opponent(Record):
    """A closed model to compare with."""

    gemini: str
    """Gemini model id."""
    base_url: str | None = None
    """Another address than Google's."""


class Recipe(Record):
    """The whole experiment, from a look at the photos to the report.

    Every stage leaves its result in `run_dir`; a stage whose inputs are unchanged is not done again, so a
    killed run goes on where it stopped.

    Examples:
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
        """Read a recipe from a file of YAML or JSON; relative paths in it are relative to the file.

        Raises:
            RecipeError: The file is missing, is not valid or has a field that is wrong; the error names it.
        """
        import yaml

        source = Path(path)
        try:
            text = source.read_text(encoding="utf-8")
            content = json.loads(text) if source.suffix == ".json" else yaml.safe_load(text)
        except FileNotFoundError as error:
            raise RecipeError(f"{source} does not exist") from error
        except (yaml.YAMLError, ValueError) as error:
            kind = "JSON" if source.suffix == ".json" else "YAML"
            raise RecipeError(f"{source} is not valid {kind}: {error}") from error
        if not isinstance(content, dict):
            raise RecipeError(f"{source} should hold the fields {', '.join(cls.model_fields)}")
        try:
            recipe = cls.model_validate(content)
        except ValidationError as error:
            raise RecipeError(f"{source}: {_explain(error)}") from error
        except VlmTuneError as error:
            raise RecipeError(f"{source}: {error}") from error
        return recipe._anchored(source.parent)

    def save(self, path: Path | str) -> Path:
        """Write the recipe as JSON that `from_file` reads back, with paths relative to the file.

        Raises:
            StorageError: The file cannot be written; nothing half-written is left.
        """
        target = Path(path)
        content = self.model_dump(mode="json")
        content["run_dir"] = _from(target.parent, self.run_dir)
        for name in ("folder", "table"):
            if (source := getattr(self.data, name)) is not None:
                content["data"][name] = _from(target.parent, source)
        if Path(self.model).is_dir():
            content["model"] = _from(target.parent, self.model)
        return _files.write_json(target, content)

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

    def run(self, *, command: str | None = None) -> Result:
        """Do everything that is not done yet and write the report.

        The recipe itself is written to `recipe.json` beside the report, so that it can be run again.

        Args:
            command: What was run, which the report shows as the way to do it again; by default `vlm-tune run` with
                that `recipe.json`.

        Raises:
            VlmTuneError: A stage failed; what was done before it is kept.
        """
        return Stages(self).result(command=command or _AGAIN)

    def check(self) -> tuple[Profile, LeakageReport]:
        """Look at the data and find the leaks."""
        run = Stages(self)
        return run.profile, run.leakage

    def fit(self) -> Adapter:
        """Do everything up to the trained adapter."""
        return Stages(self).adapter

    def trainer(self) -> LoRATrainer:
        """Return the trainer, for `plan`."""
        return LoRATrainer(VLM(self.model), self.train)

    def dataset(self) -> Dataset:
        """Return the dataset after the leaks are resolved."""
        return Stages(self).clean


_AGAIN = f"vlm-tune run {KEPT}  # in the folder of this report"


def _from(folder: Path, path: Path | str) -> str:
    """Return a path as seen from a folder; what has nothing above it in common with the folder stays where it is."""
    there, here = Path(path).resolve(), folder.resolve()
    near = there.parts[:2] == here.parts[:2]
    return os.path.relpath(there, here) if near else str(there)


def _explain(error: ValidationError) -> str:
    # A misspelt field is also a missing one; the spelling is the better news.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    *path, name = map(str, first["loc"])
    place = ".".join((*path, name))
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']}"
    known = tuple(_FIELDS[path[0] if path else ""])
    close = nearest(name, known)
    hint = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"
    return f"{place} is not a field; {hint}"


_FIELDS: dict[str, tuple[str, ...]] = {
    "": tuple(Recipe.model_fields),
    "data": tuple(DataSource.model_fields),
    "opponents": tuple(Opponent.model_fields),
    "task": tuple(Task.model_fields),
}
