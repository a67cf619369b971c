"""The batch script for slurm: it is bash, what it calls is there, and it starts a process for each GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "slurm" / "train.sbatch"


def test_it_is_bash_and_names_what_is_there() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text(encoding="utf-8")
    named = re.findall(r"examples/\S+", text)
    assert named and all((ROOT / name).is_file() for name in named)
    for option in ("--nodes", "--gpus-per-node", "--time", "--requeue", "--signal=B:TERM"):
        assert f"#SBATCH {option}" in text


def test_it_starts_a_process_for_each_gpu(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text(f"export PATH={Path(sys.executable).parent}:$PATH\n")
    (tmp_path / "script.py").write_text(
        "import os, pathlib, sys\n"
        "from vlm_tune import _processes\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
        "pathlib.Path(sys.argv[1], f'rank{_processes.rank()}').write_text(str(_processes.world_size()))\n"
    )
    environment = {**os.environ, "VENV": str(tmp_path), "SLURM_GPUS_ON_NODE": "2", "OMP_NUM_THREADS": "1"}
    command = ["bash", str(SCRIPT), str(tmp_path / "script.py"), str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, env=environment, timeout=120)
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def test_before_its_time_is_up_the_training_is_told_and_the_job_queues_again(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "activate").write_text(f"export PATH={tmp_path / 'bin'}:$PATH\n")
    stand_ins = {
        "torchrun": "trap 'echo checkpoint; exit 1' TERM; echo started; while :; do sleep 0.1; done",
        "scontrol": 'echo "$@"',
    }
    for name, body in stand_ins.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "VENV": str(tmp_path), "SLURM_JOB_ID": "77"}
    with subprocess.Popen(["bash", SCRIPT, "script.py"], stdout=subprocess.PIPE, text=True, env=environment) as job:
        assert job.stdout is not None and job.stdout.readline() == "started\n"
        job.terminate()
        assert job.communicate(timeout=30)[0] == "checkpoint\nrequeue 77\n"
