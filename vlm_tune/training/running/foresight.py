"""The whole time of a run from three of its steps, once the first ones are through."""

from __future__ import annotations

__all__ = ["Foresight"]

_WARM = 5
"""Steps in which kernels are compiled, memory is taken and clocks settle."""

_MEASURED = 3


class Foresight:
    """Watches when steps are over.

    Args:
        num_steps: How many this run has still to do.

    Examples:
        >>> foresight = Foresight(100)
        >>> seen = [foresight.over(10 + 0.5 * step) for step in range(1, 10)]
        >>> seen.index(60.0)
        7
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._times: list[float] = []

    def over(self, seconds: float) -> float | None:
        """Note that a step is over, and return the time of the whole run when it can be told, once.

        Args:
            seconds: Since the run began.
        """
        needed = _WARM + _MEASURED
        if len(self._times) >= needed:
            return None
        self._times.append(seconds)
        if len(self._times) < needed or self._num_steps <= needed:
            return None
        each = (self._times[-1] - self._times[_WARM - 1]) / _MEASURED
        return seconds + each * (self._num_steps - needed)
