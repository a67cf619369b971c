"""Which examples go into the next batch job, and writing down its requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from vlm_tune import images
from vlm_tune._files import storage_error
from vlm_tune.cost import Price
from vlm_tune.errors import ImageError
from vlm_tune.predictors.gemini_batch_options import BatchOptions
from vlm_tune.predictors.gemini_batch_state import JobFolder
from vlm_tune.predictors.gemini_batch_wire import request_line
from vlm_tune.predictors.gemini_tokens import most_cost
from vlm_tune.predictors.gemini_wire import generation_config, request_contents
from vlm_tune.predictors.shots import encoded_shots
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

if TYPE_CHECKING:
    from vlm_tune.predictors.gemini import Gemini

__all__ = ["Plan", "Planner"]

_AT_ONCE = 32


@dataclass(frozen=True)
class Plan:
    """One batch job to be.

    Attributes:
        requests: The file with its requests, one a line.
        keys: What they ask, in order.
        unreadable: Failures of examples whose image cannot be read.
        most_usd: The most that the job may cost, in dollars; 0 where no price is known.
        over_budget: Whether it ends because of the budget.
    """

    requests: Path
    keys: tuple[str, ...]
    unreadable: tuple[Prediction, ...]
    most_usd: float
    over_budget: bool


class Planner:
    """Cuts the examples that wait into jobs: by size, by number and by budget.

    Raises:
        ImageError: A shot cannot be read.
    """

    def __init__(
        self, gemini: Gemini, task: Task, options: BatchOptions, folder: JobFolder, price: Price | None
    ) -> None:
        self.gemini = gemini
        self.task = task
        self.options = options
        self.folder = folder
        self.price = price
        self.constrained = gemini.constrained is not False
        self.config = generation_config(gemini.options, task, constrained=self.constrained)
        self.shots = encoded_shots(gemini.shots, task)

    def prepare(self, waiting: dict[str, Example], *, reserved_usd: float) -> Plan:
        """Take the examples of the next job out of those that wait, and write its requests to disk.

        Args:
            waiting: Key to example; those that are in the plan are removed.
            reserved_usd: The most that jobs may cost which are open already.

        Raises:
            StorageError: The state folder cannot be written.
        """
        path = self.folder.prepared()
        try:
            with path.open("wb") as file:
                return self._fill(file, path, waiting, reserved_usd)
        except OSError as error:
            raise storage_error(path, error) from error

    def _fill(self, file: BinaryIO, path: Path, waiting: dict[str, Example], reserved_usd: float) -> Plan:
        keys: list[str] = []
        unreadable: list[Prediction] = []
        most_usd, over_budget = 0.0, False
        for key, image in self._encoded(dict(waiting)):
            if isinstance(image, ImageError):
                failed = Prediction(example_id=waiting.pop(key).id, outcome="failed", error=str(image))
                unreadable.append(failed)
                continue
            contents = request_contents(image, self.task, self.shots, constrained=self.constrained)
            line = request_line(key, contents, self.config)
            dollars = self._most_usd(image)
            over_budget = self._is_over_budget(reserved_usd + most_usd + dollars)
            too_large = bool(keys) and file.tell() + len(line) > 1e6 * self.options.max_file_mb
            if over_budget or too_large or len(keys) == self.options.max_examples:
                break
            file.write(line)
            keys.append(key)
            most_usd += dollars
            del waiting[key]
        return Plan(path, tuple(keys), tuple(unreadable), most_usd, over_budget)

    def _encoded(self, waiting: Mapping[str, Example]) -> Iterator[tuple[str, images.EncodedImage | ImageError]]:
        """Yield every example's image as it is sent, some encoded at the same time."""

        def encode(example: Example) -> images.EncodedImage | ImageError:
            try:
                return images.encode(example.image, max_pixels=self.task.max_pixels)
            except ImageError as error:
                return error

        rest = iter(waiting.items())
        with ThreadPoolExecutor() as pool:
            while some := list(islice(rest, _AT_ONCE)):
                encoded = pool.map(encode, [example for _, example in some])
                yield from zip([key for key, _ in some], encoded, strict=True)

    def _most_usd(self, image: images.EncodedImage) -> float:
        if self.price is None:
            return 0.0
        return most_cost(self.gemini.model, self.gemini.options, self.task, image, self.shots, self.price)

    def _is_over_budget(self, dollars: float) -> bool:
        cap = self.gemini.options.max_cost_usd
        return cap is not None and self.gemini.ledger.committed_usd + dollars > cap
