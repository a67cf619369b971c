"""Exact nearest neighbours: every query against every reference, without ever holding all the scores.

Scores are first computed fast (single precision on a CPU, half precision on a GPU) together with a bound on their
rounding. Whatever the bound leaves open is computed again in double precision, so that the results are those of the
plain double-precision product: the same pairs reach a threshold, the same neighbours are nearest, in the same order.
"""

from vlm_tune.leakage.neighbours.engine import Pairs
from vlm_tune.leakage.neighbours.passes import Scan, above, centred, scan, top_k

__all__ = ["Pairs", "Scan", "above", "centred", "scan", "top_k"]
