"""`RayBackend`: the units of an experiment, and batches of photos, on a Ray cluster."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Self, TypeVar

from vlm_tune.errors import BackendError
from vlm_tune.experiments.backends import Outcome, Report
from vlm_tune.experiments.on_ray import cluster
from vlm_tune.experiments.on_ray.batches import map_batches
from vlm_tune.experiments.on_ray.units import Units

__all__ = ["RayBackend"]

U = TypeVar("U")
R = TypeVar("R")

_ROUNDS = 4
"""Batches that each worker gets at least, where there are enough items: so that all finish together."""


class RayBackend:
    """Works on a Ray cluster: points of a curve, trials of a sweep, and batches of photos to answer or embed.

    Results are those of one process. Every worker is a process of its own with the GPUs and cores it asks for, and
    keeps the model it has loaded. One that is lost costs what it was at: that is done again by another one. Work runs
    in this process's working directory where a machine has such a folder; photos, models and `run_dir` must be at
    the same place on every machine.

    Several calls inside `with RayBackend(...) as backend:` share one connection.

    Args:
        address: `host:port` of a cluster, `ray://host:port`, or `auto` for the one this machine belongs to. None
            starts one on this machine and stops it at the end of the call; a process that has called `ray.init` uses
            what it is connected to.
        num_gpus: GPUs of each worker, parts of one too; None: one, where the cluster has any.
        num_cpus: Cores of each worker.
        max_workers: Workers at the same time; None: as many as the machines have room for now. A larger number lets a
            cluster that grows by itself start machines.
        max_retries: How often a unit or batch is begun anew after its worker was lost.

    Raises:
        ValueError: A number is impossible.

    Examples:
        >>> curve = LearningCurve.run(trainer, data, sizes, backend=RayBackend("head:6379"))  # doctest: +SKIP
        >>> Evaluator(data.test).run(base, backend=RayBackend(num_gpus=1))  # doctest: +SKIP
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_gpus: float | None = None,
        num_cpus: float = 1,
        max_workers: int | None = None,
        max_retries: int = 3,
    ) -> None:
        if num_cpus < 0 or (num_gpus or 0) < 0 or not (num_cpus or num_gpus):
            raise ValueError(f"a worker needs cores or GPUs, got num_cpus={num_cpus}, num_gpus={num_gpus}")
        if max_retries < 0 or (max_workers is not None and max_workers < 1):
            raise ValueError(f"max_retries={max_retries} must be at least 0 and max_workers={max_workers} at least 1")
        self.address = address
        self.num_gpus = num_gpus
        self.num_cpus = num_cpus
        self.max_workers = max_workers
        self.max_retries = max_retries
        self._open = ExitStack()

    def __repr__(self) -> str:
        return f"RayBackend({self.address!r}, num_gpus={self.num_gpus}, num_cpus={self.num_cpus})"

    def __enter__(self) -> Self:
        self._open.enter_context(cluster.connected(self.address))
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()

    def run(
        self,
        work: Callable[[U, Report], R],
        units: Iterable[U],
        *,
        heard: Callable[[U, Any], bool] | None = None,
    ) -> Iterator[Outcome[U, R]]:
        """Yield the outcome of each unit as it comes; see `Backend.run`.

        A unit whose worker was lost too often (a machine's main memory ran out, say) has that as its outcome. Reports
        are heard while the next outcome is waited for; those of a unit that is begun anew come again.

        Raises:
            MissingExtraError: Ray is not installed.
            BackendError: There is no cluster, it has no room for one worker, or the work does not pickle.
            Exception: Whatever else the work raises, with the traceback on the worker as a note.
        """
        drawn = iter(units)
        # Where all is done already, no cluster is needed.
        for first in drawn:
            yield from self._run(work, itertools.chain([first], drawn), heard)

    def _run(
        self, work: Callable[[U, Report], R], units: Iterable[U], heard: Callable[[U, Any], bool] | None
    ) -> Iterator[Outcome[U, R]]:
        with self._cluster() as (ray, needs):
            room = partial(self._room, ray, needs)
            yield from Units(ray, work, heard, needs=needs, room=room, max_retries=self.max_retries).outcomes(units)

    def map_batches(self, work: Callable[[Sequence[U]], R], items: Sequence[U], *, most: int) -> Iterator[R]:
        """Yield what the work makes of each batch of items, as it comes, by actors of Ray Data.

        Args:
            work: Takes a batch; sent to each worker once.
            items: What to work on.
            most: Largest size of a batch; smaller ones are made where there are few items for each worker.

        Raises:
            MissingExtraError: Ray is not installed.
            BackendError: As for `run`; or workers were lost too often with the same batch.
            Exception: Whatever the work raises, with the traceback on the worker as a note.
        """
        if not items:
            return
        with self._cluster() as (ray, needs):
            workers = self._room(ray, needs)
            size = min(most, math.ceil(len(items) / (_ROUNDS * workers)))
            batches = [items[start : start + size] for start in range(0, len(items), size)]
            workers = min(workers, len(batches))
            yield from map_batches(ray, work, batches, needs=needs, workers=workers, max_retries=self.max_retries)

    @contextmanager
    def _cluster(self) -> Iterator[tuple[Any, dict[str, float]]]:
        """Yield Ray, connected, and what a worker needs; raise where no machine has it."""
        with cluster.connected(self.address) as ray:
            has = ray.cluster_resources()
            num_gpus = min(1, has.get("GPU", 0)) if self.num_gpus is None else self.num_gpus
            needs = {"num_gpus": num_gpus, "num_cpus": self.num_cpus}
            if self.max_workers is None and not self._room(ray, needs):
                raise BackendError(
                    f"no machine of the cluster has room for a worker with {num_gpus:g} GPUs and {self.num_cpus:g} "
                    f"cores; all of them have {has.get('GPU', 0):g} GPUs and {has.get('CPU', 0):g} cores together"
                )
            yield ray, needs

    def _room(self, ray: Any, needs: dict[str, float]) -> int:
        return self.max_workers or cluster.room(ray, **needs)
