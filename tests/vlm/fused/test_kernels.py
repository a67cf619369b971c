"""The kernels against the formulas, run by Triton's interpreter: no GPU is needed to know that they are right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("interpreted.py")


def test_kernels_equal_the_formulas_forward_and_backward() -> None:
    # The interpreter is chosen when the kernels are defined, so they get a process of their own.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kernels = ["gated_conv_at", "add_rms_norm", "rms_norm", "heads", "norm_heads", "swiglu", "gated_conv"]
    assert done.stdout.split() == kernels
