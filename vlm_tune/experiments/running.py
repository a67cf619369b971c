"""Running a learning curve: train and evaluate at each size, keep what is finished, go on from there.

    run_dir/points/<size>-<seed>-<inputs>.json       a finished point, or why it failed
    run_dir/trainings/<size>-<seed>-<inputs>/        its training: checkpoints and adapter while they are needed, the
                                                     answers (predictions/) and the evaluation on the test images
    run_dir/curve.json                               the curve of the last call

`<inputs>` changes with the model, the configuration, the task and the images, so that points of another experiment in
the same folder are never taken for this one's.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vlm_tune import _console, _files, _processes
from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Evaluator
from vlm_tune.experiments.backends import Backend, LocalBackend, Outcome, Report
from vlm_tune.experiments.noted import cost_of, rows_of
from vlm_tune.experiments.points import CurvePoint, FailedPoint
from vlm_tune.experiments.subsets import SAMPLE, check_sizes, sample_of
from vlm_tune.training.running.failures import explained
from vlm_tune.vlm.loading import pick_device

if TYPE_CHECKING:
    from vlm_tune.data import Dataset
    from vlm_tune.training import LoRATrainer, TrainConfig

__all__ = ["of_one_test_set", "run_points"]

_KIND = "curve point"


@dataclass(frozen=True)
class Unit:
    """One training that a curve asks for.

    Attributes:
        size: Training images.
        seed: What the subset and the training are drawn with.
        inputs: Sixteen hexadecimal digits over everything that decides what comes out.
    """

    size: int
    seed: int
    inputs: str

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.size}-{self.seed}-{self.inputs}"


@dataclass(frozen=True)
class Curve:
    """What the points of a curve have in common; it trains and evaluates one of them, here or elsewhere.

    Attributes:
        trainer: Trains with the configuration of the points, but for the seed.
        train: All training images; each point has a subset of them.
        test: The test images.
        validation: What the configuration chooses by; None where it does not choose.
        folder: Where everything is kept.
        keep_adapters: Whether adapters stay when they have answered.
    """

    trainer: LoRATrainer
    train: Dataset
    test: Dataset
    validation: Dataset | None
    folder: Path
    keep_adapters: bool

    def unit(self, size: int, seed: int) -> Unit:
        """Return one training, with the fingerprint of what it depends on.

        Raises:
            ImageError: An image is missing.
        """
        base = self.trainer.base
        everything = [
            base.fingerprint,
            self.config(seed).fingerprint,
            self.train.task.fingerprint,
            SAMPLE,
            rows_of(self.train.subset(size, seed=seed)),
            rows_of(self.test),
            rows_of(self.validation or ()),
        ]
        return Unit(size, seed, hashlib.sha256(json.dumps(everything).encode()).hexdigest()[:16])

    def config(self, seed: int) -> TrainConfig:
        """Return the configuration of the trainings of a seed."""
        return self.trainer.config.model_copy(update={"seed": seed})

    def __call__(self, unit: Unit, report: Report) -> CurvePoint:
        """Train, evaluate, keep the point, and return it.

        Raises:
            VlmTuneError: The training or the evaluation failed.
        """
        trainer = self.trainer.with_config(self.config(unit.seed))
        folder = self.folder / "trainings" / unit.name
        train = self.train.subset(unit.size, seed=unit.seed)
        with explained(trainer.config, pick_device(trainer.base.device)):
            adapter = trainer.fit(train, validation=self.validation, run_dir=folder)
            evaluation = Evaluator(self.test, run_dir=folder).run(adapter)
            known = Evaluator(sample_of(self.train, unit.size, unit.seed), run_dir=folder).run(adapter)
        point = CurvePoint.of(
            evaluation,
            size=unit.size,
            seed=unit.seed,
            train_accuracy=known.accuracy,
            cost=cost_of(adapter),
            seconds=adapter.training.seconds,
        )
        _processes.by_one(evaluation.save)(folder / "test.parquet")
        # Before the adapter goes: a process that is killed in between has lost nothing.
        _processes.by_one(self.keep)(unit, point)
        if not self.keep_adapters:
            _processes.by_one(shutil.rmtree)(folder / "adapter", ignore_errors=True)
        return point

    def keep(self, unit: Unit, result: CurvePoint | FailedPoint) -> None:
        """Write down what came of a training.

        Raises:
            StorageError: The disk is full.
        """
        base, config = self.trainer.base, self.config(unit.seed)
        settings = {"model": base.name, "source": base.source, "config": config.model_dump(mode="json")}
        kind = "point" if isinstance(result, CurvePoint) else "failure"
        content = {"kind": _KIND, kind: result.model_dump(mode="json"), "settings": settings}
        _files.write_json(self._path(unit), content)

    def kept(self, unit: Unit) -> CurvePoint | None:
        """Return the point of a training that is finished; None for one that is not, or that failed.

        Raises:
            StorageError: The file holds something else.
        """
        path = self._path(unit)
        if not path.exists():
            return None
        found = _files.read_json(path)
        try:
            if found["kind"] != _KIND or not {"point", "failure"} & set(found):
                raise KeyError(_KIND)
            return CurvePoint.model_validate(found["point"]) if "point" in found else None
        except (KeyError, TypeError, ValidationError) as error:
            raise StorageError(f"{path} holds something else than a {_KIND}; move it away and run again") from error

    def open(self, units: Sequence[Unit]) -> dict[Unit, CurvePoint]:
        """Make the folder, and return the points that are there already.

        Raises:
            StorageError: The folder cannot be written, or a file in it is not what it should be.
        """
        # Written, and not only made: a training is too long to find out at its end.
        asked = [{"size": unit.size, "seed": unit.seed, "inputs": unit.inputs} for unit in units]
        _files.write_json(self.folder / "points.json", {"kind": "curve points asked for", "points": asked})
        found = {unit: point for unit in units if (point := self.kept(unit)) is not None}
        names = {unit.name for unit in units}
        others = sum(path.stem not in names for path in (self.folder / "points").glob("*.json"))
        if others:
            _console.notice(f"{self.folder / 'points'} holds {others} points of other settings or images; they stay.")
        return found

    def _path(self, unit: Unit) -> Path:
        return self.folder / "points" / f"{unit.name}.json"


def run_points(
    trainer: LoRATrainer,
    data: Dataset,
    sizes: Sequence[int],
    seeds: Sequence[int],
    *,
    run_dir: Path,
    backend: Backend | None,
    keep_adapters: bool,
) -> tuple[list[CurvePoint], list[FailedPoint]]:
    """Return the points that could be made and those that failed; see `LearningCurve.run`."""
    train, test, validation = data.train, data.test, _chosen_by(trainer.config, data)
    check_sizes(train, sizes, seeds)
    trainer.check(train, validation=validation)
    curve = Curve(trainer, train, test, validation, run_dir.absolute(), keep_adapters)
    units = [curve.unit(size, seed) for size in sorted(sizes) for seed in seeds]
    points = _processes.by_one(curve.open)(units)
    if points:
        _console.notice(f"{len(points)} of {len(units)} points were finished before.")
    failed = []
    with _console.progress("Learning curve", total=len(units), timed=False) as bar:
        bar.advance(len(points))
        left = _TimeLeft(curve, [unit for unit in units if unit not in points])
        for outcome in (backend or LocalBackend()).run(curve, left.units):
            failure = _failure(outcome)
            result = outcome.result if failure is None else failure
            assert result is not None
            # Another machine may have kept it on a disk of its own.
            if _processes.by_one(curve.kept)(outcome.unit) is None:
                _processes.by_one(curve.keep)(outcome.unit, result)
            if isinstance(result, FailedPoint):
                failed.append(result)
            else:
                points[outcome.unit] = result
            bar.advance()
            bar.note(left.after(outcome.unit))
            _console.notice(result.sentence)
    kept, others = of_one_test_set([points[unit] for unit in units if unit in points])
    return kept, [*failed, *others]


def of_one_test_set(points: Sequence[CurvePoint]) -> tuple[list[CurvePoint], list[FailedPoint]]:
    """Return the points that were measured on the test images of most of them, and the others as failed.

    A model whose scores are no numbers for some images has no answer to them.
    """
    if not points:
        return [], []
    commonest, _ = Counter((point.n_test, point.test_set) for point in points).most_common(1)[0]
    kept = [point for point in points if (point.n_test, point.test_set) == commonest]
    others = [
        FailedPoint(
            size=point.size,
            seed=point.seed,
            error=f"answered {point.n_test} test images and not the {commonest[0]} that most points answered, so it "
            "cannot be compared with them; look at the failures in its test.parquet",
        )
        for point in points
        if (point.n_test, point.test_set) != commonest
    ]
    return kept, others


class _TimeLeft:
    """How long the trainings that are left will take, by those that are done: by images, not by points."""

    def __init__(self, curve: Curve, units: Sequence[Unit]) -> None:
        self.units = list(units)
        self._curve = curve
        self._started = time.monotonic()
        self._done = 0.0
        self._all = sum(map(self._work, units))

    def after(self, unit: Unit) -> str:
        """Return in words what is left once another training is done."""
        self._done += self._work(unit)
        if self._done >= self._all:
            return ""
        seconds = (time.monotonic() - self._started) * (self._all - self._done) / self._done
        if seconds < 90:
            return f"about {seconds:.0f} s left"
        return f"about {seconds / 60:.0f} min left" if seconds < 5400 else f"about {seconds / 3600:.1f} h left"

    def _work(self, unit: Unit) -> float:
        """Return the passes over an image: a step forwards and backwards counts as three."""
        epochs = self._curve.trainer.config.epochs
        return 3 * epochs * unit.size + min(unit.size, SAMPLE) + len(self._curve.test)


def _chosen_by(config: TrainConfig, data: Dataset) -> Dataset | None:
    """Return the validation images where the configuration chooses by them."""
    chooses = config.keep == "best" or config.patience is not None
    return data.validation if chooses and data.has_split("validation") else None


def _failure(outcome: Outcome[Unit, CurvePoint]) -> FailedPoint | None:
    if outcome.error is None:
        return None
    return FailedPoint(size=outcome.unit.size, seed=outcome.unit.seed, error=outcome.error)
