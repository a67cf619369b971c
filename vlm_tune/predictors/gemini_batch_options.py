"""How long to wait for a batch job, and how much goes into one."""

from __future__ import annotations

from pydantic import Field, PositiveFloat, PositiveInt

from vlm_tune.records import Record

__all__ = ["BatchOptions"]


class BatchOptions(Record):
    """How Gemini is asked in batch mode; none of it can change an answer.

    Examples:
        >>> BatchOptions(deadline_s=6 * 3600).poll_s
        10.0
    """

    deadline_s: PositiveFloat = 24 * 3600.0
    """Age at which a job is cancelled, and what it has not answered is asked online at the full price."""
    poll_s: PositiveFloat = 10.0
    """Wait before the first look at the jobs; half as long again before every further one."""
    longest_poll_s: PositiveFloat = 120.0
    """Longest wait between two looks."""
    settle_s: PositiveFloat = 60.0
    """How long the server may take to list a job whose creation broke off, or to end one that is cancelled."""
    max_inline_mb: float = Field(default=10.0, ge=0.0, le=18.0)
    """Jobs up to this size go in one call, larger ones as a file; the service takes less than 20 MB."""
    max_file_mb: float = Field(default=500.0, gt=0.0, le=1900.0)
    """Largest file of one job; the service takes 2 GB."""
    max_examples: PositiveInt = 10_000
    """Most examples in one job."""
