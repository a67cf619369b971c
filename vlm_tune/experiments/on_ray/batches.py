"""Batches of items on Ray Data: actors that keep what they have loaded, and results as they come."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from vlm_tune._processes import Failure
from vlm_tune.errors import BackendError
from vlm_tune.experiments.on_ray.sending import beside, packed, settle, tried

__all__ = ["map_batches"]


class Begun:
    """How often each batch was begun: Ray Data begins one anew whose worker was lost, and knows no end of it."""

    def __init__(self) -> None:
        self._counts = Counter[int]()

    def count(self, number: int) -> int:
        """Count a beginning, and return how many there were."""
        self._counts[number] += 1
        return self._counts[number]


class Batches:
    """What an actor of Ray Data does with rows that hold packed batches.

    Args:
        folder: The caller's working directory.
        work: The packed work: unpacked once, so that what it keeps for the next batch is there.
        begun: The actor that counts.
        max_retries: How often a batch is begun anew.
    """

    def __init__(self, folder: str, work: bytes, begun: Any, max_retries: int) -> None:
        settle(folder)
        self._packed = work
        self._work: Any = None
        self._begun = begun
        self._max_retries = max_retries

    def __call__(self, rows: dict[str, Any]) -> dict[str, list[bytes]]:
        """Return the packed result of each row, or what was raised."""
        import ray

        pairs = zip(rows["number"], rows["batch"], strict=True)
        return {"result": [ray.cloudpickle.dumps(tried(self._attend, int(one), bytes(two))) for one, two in pairs]}

    def _attend(self, number: int, batch: bytes) -> Any:
        import ray

        num_begun = ray.get(self._begun.count.remote(number))
        if num_begun > self._max_retries + 1:
            raise BackendError(
                f"the worker was lost at every attempt ({num_begun - 1}) at one batch, mostly because memory ran out; "
                "give each worker more of a machine (num_cpus, num_gpus), so that fewer share it"
            )
        self._work = self._work or ray.cloudpickle.loads(self._packed)
        return self._work(ray.cloudpickle.loads(batch))


def map_batches(
    ray: Any,
    work: Callable[[Sequence[Any]], Any],
    batches: Sequence[Sequence[Any]],
    *,
    needs: dict[str, float],
    workers: int,
    max_retries: int,
) -> Iterator[Any]:
    """Yield what the work makes of each batch, as it comes; see `RayBackend.map_batches`.

    Args:
        ray: The module, connected.
        work: Takes a batch.
        batches: The batches.
        needs: Resources of each worker.
        workers: How many there are.
        max_retries: How often a batch is begun anew after its worker was lost.
    """
    import ray.data as ray_data

    begun = beside(ray, Begun).remote()
    rows = [{"number": at, "batch": packed(ray, batch, "a batch")} for at, batch in enumerate(batches)]
    with _quietly(ray_data):
        results = ray_data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Batches,
            fn_constructor_args=(str(Path.cwd()), packed(ray, work, "the work"), begun, max_retries),
            batch_size=1,
            compute=ray_data.ActorPoolStrategy(size=workers),
            num_cpus=needs["num_cpus"],
            num_gpus=needs["num_gpus"] or None,
        )
        # Its end stops the actors, whoever ends it.
        with closing(iter(results.iter_batches(batch_size=None, prefetch_batches=0))) as blocks:
            for block in blocks:
                for data in block["result"]:
                    result = ray.cloudpickle.loads(data)
                    if isinstance(result, Failure):
                        raise result.error
                    yield result


@contextmanager
def _quietly(ray_data: Any) -> Iterator[None]:
    """Let Ray Data draw no bars and write to no terminal."""
    context, handlers = ray_data.DataContext.get_current(), logging.getLogger("ray.data").handlers
    bars, levels = context.enable_progress_bars, [handler.level for handler in handlers]
    context.enable_progress_bars = False
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
