"""Where the units of an experiment are worked on: here, one after the other, or on many machines.

A unit is a point of a learning curve or a trial of a sweep. Whoever draws them says what to do with one, and gets an
outcome for each as it comes; a backend of your own, such as the one in `examples/modal_app.py`, is a class with `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

from vlm_tune.errors import StoppedError, VlmTuneError

__all__ = ["Backend", "LocalBackend", "Outcome", "Report", "attempt", "go_on"]

U = TypeVar("U")
R = TypeVar("R")

Report: TypeAlias = Callable[[Any], bool]
"""Tells of a unit while it is worked on; the answer says whether to go on with it."""


@dataclass(frozen=True)
class Outcome(Generic[U, R]):
    """What came of one unit.

    Attributes:
        unit: The unit.
        result: What the work returned; None where it failed.
        error: Why it failed; None where it did not.
    """

    unit: U
    result: R | None = None
    error: str | None = None


@runtime_checkable
class Backend(Protocol):
    """Works on units, in this process or elsewhere.

    The work and the units are sent to where they are worked on, so they must pickle; `VLM`, `Dataset` and `LoRATrainer`
    do, without weights.
    """

    def run(
        self,
        work: Callable[[U, Report], R],
        units: Iterable[U],
        *,
        heard: Callable[[U, Any], bool] | None = None,
    ) -> Iterator[Outcome[U, R]]:
        """Yield the outcome of each unit as it comes, in any order; closing the iterator stops the work.

        What the library raises on purpose about one unit (memory ran out, the loss is not finite) becomes its
        outcome, and the others go on.

        Args:
            work: Takes a unit and a report, with which it may tell of the unit and ask whether to go on.
            units: The units; the next one is drawn only when there is room for it, so that it may be chosen by what
                came of those before.
            heard: Called in this process with a unit and what its work reports; its answer goes back to the work.
                Without it the answer is always to go on.

        Raises:
            StoppedError: The process was asked to end.
            Exception: Whatever else the work raises.
        """


class LocalBackend:
    """Works on the units in this process, one after the other: they share the loaded model.

    Examples:
        >>> def square(unit: int, report: Report) -> int:
        ...     if unit == 3:
        ...         raise VlmTuneError("three is too many")
        ...     return unit**2
        >>> [outcome.result or outcome.error for outcome in LocalBackend().run(square, [1, 2, 3, 4])]
        [1, 4, 'three is too many', 16]
    """

    def __repr__(self) -> str:
        return "LocalBackend()"

    def run(
        self,
        work: Callable[[U, Report], R],
        units: Iterable[U],
        *,
        heard: Callable[[U, Any], bool] | None = None,
    ) -> Iterator[Outcome[U, R]]:
        """Yield the outcome of each unit, in order; see `Backend.run`."""
        for unit in units:
            yield attempt(work, unit, go_on if heard is None else partial(heard, unit))

    def map_batches(self, work: Callable[[Sequence[U]], R], items: Sequence[U], *, most: int) -> Iterator[R]:
        """Yield what the work makes of each batch of at most so many items, in order."""
        for start in range(0, len(items), most):
            yield work(items[start : start + most])


def attempt(work: Callable[[U, Report], R], unit: U, report: Report) -> Outcome[U, R]:
    """Work on one unit, and return its outcome; for backends.

    Raises:
        StoppedError: The process was asked to end.
        Exception: Whatever the work raises that is no `VlmTuneError`.
    """
    try:
        return Outcome(unit, result=work(unit, report))
    except StoppedError:
        raise
    except VlmTuneError as error:
        return Outcome(unit, error=str(error))


def go_on(message: Any) -> bool:
    """Answer a report that nobody hears: go on."""
    return True
