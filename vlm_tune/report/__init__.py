"""One page that shows what was found, and why it can be believed."""

from __future__ import annotations

import vlm_tune.report.audit
import vlm_tune.report.costs
import vlm_tune.report.curve
import vlm_tune.report.leakage
import vlm_tune.report.sweep
import vlm_tune.report.training
import vlm_tune.report.trust  # noqa: F401  (all register their sections)
from vlm_tune.report.report import Report

__all__ = ["Report"]
