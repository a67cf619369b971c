"""What an example counts as: its class or, for a multi-label task, each of its classes, or `none`."""

from __future__ import annotations

from vlm_tune.records import Example
from vlm_tune.task import NONE, Task

__all__ = ["strata", "strata_of"]


def strata(task: Task) -> tuple[str, ...]:
    """Return everything that an example can count as, in the task's order.

    Examples:
        >>> strata(Task(prompt="What is damaged?", classes=("crack", "dent"), multi_label=True))
        ('crack', 'dent', 'none')
    """
    return (*task.classes, NONE) if task.multi_label else task.classes


def strata_of(example: Example, task: Task) -> tuple[str, ...]:
    """Return what an example counts as, at least one."""
    return task.members(example.label) or (NONE,)
