"""What a variant of the CIFAR-100 experiment gained: with the luck of its seeds, or without an interval."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import vlm_tune as vt

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cifar100_results as results


def keep(folder: Path, variant: str, seed: int, size: int, right: int) -> None:
    rightness = np.random.default_rng(seed).permutation(200) < right
    point = vt.CurvePoint.of_answers(rightness, size=size, seed=seed, test_set="one")
    path = folder / variant / str(seed) / "points" / f"{size}-{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"point": point.model_dump(mode="json")}))


def test_a_gain_counts_the_seeds_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(json.dumps(["a", "b"]))
    for seed, (plain, mixed) in enumerate(((100, 110), (102, 103), (98, 112))):
        keep(tmp_path, "none", seed, 400, plain)
        keep(tmp_path, "mixup", seed, 400, mixed)
    keep(tmp_path, "cutmix", 0, 400, 120)
    variants = results.figures(tmp_path)["variants"]
    (mixed,), (alone,) = variants["mixup"]["against_none"], variants["cutmix"]["against_none"]
    assert mixed["by_seed"] == [0.05, 0.005, 0.07]
    # By image alone, where the seeds of a pair agree on nearly all of them, the interval would lie above zero.
    assert mixed["gain"][1] < 0 < mixed["gain"][0] < mixed["gain"][2]
    assert (alone["gain"], alone["by_seed"]) == (None, [0.1])
    assert "| 400 | 60.0 % " in results.markdown({"variants": {"cutmix": variants["cutmix"]}})
