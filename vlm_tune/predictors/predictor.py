"""The one thing that every system under test is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task

__all__ = ["Predictor"]


@runtime_checkable
class Predictor(Protocol):
    """Answers a task's question about examples: a guess, a local model, an API.

    It may have more, which an `Evaluator` uses where it is there: `with_state(folder)`, the same predictor with a
    folder of the run to remember things in; `prompt_note`, a text for reports on what it was shown besides the task's
    prompt; `possibly_billed`, the number of calls that broke off after they were sent; and `asked_by`, which of
    several processes ask it: `one`, the first, where nothing is said; `each` its part of the examples, where every
    process has a copy of what answers; `all` the same in step, where they answer only together.

    Examples:
        >>> class AlwaysDent:
        ...     name, fingerprint = "always dent", "always-dent-1"
        ...     def predict(self, examples, task):
        ...         for example in examples:
        ...             yield Prediction(example_id=example.id, outcome="answered", label="dent")
        >>> isinstance(AlwaysDent(), Predictor)
        True
    """

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever its answers could: model, revision, options. Answers are kept under it."""

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example as answers come in, in any order.

        An example that cannot be answered yields the outcome `failed` with the reason; it never raises.

        Raises:
            VlmTuneError: The set-up is broken: no key, no such model, nothing fits.
        """
