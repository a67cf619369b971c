"""A real SIGTERM to the command line, as a spot machine sends it."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.processes import Child
from tests.training.conftest import COLOURS, photo
from tests.training.running.faults import checkpoints
from vlm_tune.recipe import Recipe

RECIPE = {
    "task": {"prompt": "Which colour?", "classes": COLOURS},
    "data": {"folder": "photos"},
    "overfit": False,
    "train": {"r": 4, "learning_rate": 5e-3, "epochs": 10, "save_every": 5},
    "run_dir": "run",
}


def test_fit_stops_with_a_status_of_its_own_and_goes_on(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    for place in range(24):
        file = tmp_path / "photos" / COLOURS[place % 3] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(photo(COLOURS[place % 3], place))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**RECIPE, "model": str(tiny_qwen3_vl)}))

    process = Child("-m", "vlm_tune", "fit", recipe)
    deadline = time.monotonic() + 200
    while not any(checkpoints(tmp_path / "run").values()):
        assert process.poll() is None and time.monotonic() < deadline, process.wait(1).err
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    status, _, said = process.wait()
    assert status == 75, said
    assert "training was asked to end after step" in said and "run the same again" in said
    assert "Traceback" not in said and "error" not in said
    assert all(checkpoints(tmp_path / "run").values())

    resumed = Recipe.from_file(recipe).fit()
    assert f"after step {resumed.training.resumed_from} of {resumed.training.num_steps}" in said
