"""Figures: plain data in, a matplotlib `Figure` out; no pyplot, no global style.

Every figure names its sample size, and its interval where there is one. A predictor has the same colour in
every figure. The colours keep a contrast of 3:1 on white and on near-black, and no figure relies on colour
alone.
"""

from __future__ import annotations

from vlm_tune.plots.calibration import cascade, reliability, risk_coverage
from vlm_tune.plots.curves import CurveBand, learning_curve
from vlm_tune.plots.matrix import difference_matrix, power_curve
from vlm_tune.plots.photos import class_balance, image_grid, pair_grid, similarity_histogram
from vlm_tune.plots.style import colours, figure_to_png, figure_to_svg, palette
from vlm_tune.plots.systems import accuracy_forest, class_scores, confusion, paired_bar
from vlm_tune.plots.training import loss_curve, modules_hit, score_differences, token_spans

__all__ = [
    "CurveBand",
    "accuracy_forest",
    "cascade",
    "class_balance",
    "class_scores",
    "colours",
    "confusion",
    "difference_matrix",
    "figure_to_png",
    "figure_to_svg",
    "image_grid",
    "learning_curve",
    "loss_curve",
    "modules_hit",
    "pair_grid",
    "paired_bar",
    "palette",
    "power_curve",
    "reliability",
    "risk_coverage",
    "score_differences",
    "similarity_histogram",
    "token_spans",
]
