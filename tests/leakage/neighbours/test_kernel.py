"""The GPU kernel: its arithmetic in Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from vlm_tune.leakage.neighbours import centred, scan
from vlm_tune.leakage.neighbours.device import DeviceEngine, fused_maxima, plain_maxima

INTERPRETED = """
import torch
from vlm_tune.leakage.neighbours import kernel

torch.manual_seed(0)
queries, references = (torch.nn.functional.normalize(torch.randn(n, 128), dim=1).half() for n in (150, 600))
best = torch.full((150, 10), torch.nan)
kernel.maxima(queries, references, best, processors=3)
scores = torch.nn.functional.pad(queries.float() @ references.float().T, (0, 40), value=-torch.inf)
assert (best - scores.view(150, 10, 64).amax(dim=2)).abs().max() < 1e-6
"""


def test_the_kernel_gives_the_greatest_score_of_each_group() -> None:
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_blocks_of_scores_give_the_greatest_score_of_each_group() -> None:
    rows = torch.nn.functional.normalize(torch.randn(300, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    best = plain_maxima(rows[:70].half(), rows.half())
    scores = torch.nn.functional.pad(rows[:70] @ rows.T, (0, 20), value=-torch.inf)
    assert torch.allclose(best, scores.view(70, 5, 64).amax(dim=2), atol=2e-3)


def test_the_bound_on_rounding_holds_in_half_precision() -> None:
    rng = np.random.default_rng(0)
    queries, references = (torch.from_numpy(centred(rng.standard_normal((n, 96), np.float32), np.zeros(96, np.float32)))
                           for n in (200, 640))  # fmt: skip
    machine = DeviceEngine([queries], references)
    exact = (queries.double() @ references.double().T).view(200, 10, 64).amax(dim=2)
    off = float((plain_maxima(queries.half(), references.half()) - exact).abs().max())
    assert 0 < off < machine.rounding < 0.01


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_what_the_cpu_finds() -> None:
    assert fused_maxima("cuda:0") is not None
    rng = np.random.default_rng(0)
    rows = centred(rng.standard_normal((5000, 200), np.float32) + 1, np.zeros(200, np.float32))
    rows[4000:4100] = rows[:100]
    here, there = (scan([rows, rows[:, ::-1]], rows, 0.6, within=True, device=device) for device in ("cpu", "cuda"))
    for one, other in zip((*here[:2], *here.pairs), (*there[:2], *there.pairs), strict=True):
        assert np.array_equal(one, other)
    assert here.num_above == there.num_above
