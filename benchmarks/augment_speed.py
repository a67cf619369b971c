"""How fast training is with changed and mixed photos, beside none, on one machine.

    python benchmarks/augment_speed.py --checkpoints /tmp/models --json augment.json
    python benchmarks/augment_speed.py --tiny

The models have true dimensions and random weights; they are written into the folder where they are missing. `headline`
is photos of 1000x750 with Qwen3-VL-8B, its attention adapted in the language model (A) or everywhere (B); `cifar` is
images of 32x32 with LFM2-VL-3B. Every run reads its photos anew but `none, again`, which finds those that the run
before it has left. A photo that is mixed of two labels is read twice by the language model: mixing may halve the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train_jobs import Job, cifar, headline

import vlm_tune as vt
from vlm_tune import versions

SETTINGS: dict[str, vt.Augment | None] = {
    "none": None,
    "none, again": None,
    "crop, flip, colour": vt.Augment(crop=(0.6, 1.0), flip=True, colour=0.3),
    "RandAugment": vt.Augment(rand_augment=2),
    "all of these and blur": vt.Augment(crop=(0.6, 1.0), flip=True, rand_augment=2, colour=0.3, blur=0.01),
    "MixUp": vt.Augment(mixup=0.2),
    "CutMix, half": vt.Augment(cutmix=1.0, mix_share=0.5),
}
MODELS = {"headline": "qwen3-vl-8b", "cifar": "lfm2-vl-3b"}
EPOCHS = 2


def jobs(checkpoints: Path, names: list[str], *, tiny: bool) -> Iterator[tuple[Job, int]]:
    """Yield every job with its batch size."""
    import make_random_checkpoint

    for name in names:
        folder = checkpoints / MODELS[name]
        if not (folder / "config.json").exists():
            make_random_checkpoint.write(MODELS[name], folder, tiny=tiny)
        if name == "headline":
            for form in "AB":
                yield headline(folder, form=form, tiny=tiny).first(8 if tiny else 128), 4 if tiny else 8
        else:
            yield cifar(folder, images=16 if tiny else 3_200, classes=20, tiny=tiny), 4 if tiny else 64


def rows(checkpoints: Path, names: list[str], *, tiny: bool) -> Iterator[dict[str, Any]]:
    """Do every run and yield what was seen."""
    import train_contenders

    for job, batch_size in jobs(checkpoints, names, tiny=tiny):
        for setting, augment in SETTINGS.items():
            config = vt.TrainConfig(regions=job.regions, batch_size=batch_size, epochs=EPOCHS, augment=augment)
            again = setting.endswith("again")
            run = train_contenders.train_vlm_tune(job, config, shared=again)
            number = len(job.data) * EPOCHS
            yield {
                "job": job.name,
                "form": job.form,
                "batch": batch_size,
                "setting": setting,
                "samples_per_s": run.rate(number, batch_size),
                "first_step_s": run.steps[0],
                "whole_s": run.seconds,
                "peak_gb": run.peak_gb,
                "samples": number,
                "gpu": versions.hardware()["gpu"],
                "cores": len(os.sched_getaffinity(0)),
            }


def markdown(found: list[dict[str, Any]]) -> str:
    """Return the rows as a table."""
    plain = {(row["job"], row["form"]): row["samples_per_s"] for row in found if row["setting"] == "none"}
    lines = [
        "| job | batch | photos are changed by | samples/s | of none | first step | whole run | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        share = row["samples_per_s"] / plain[row["job"], row["form"]]
        lines.append(
            f"| {row['job']} {row['form']} | {row['batch']} | {row['setting']} | {row['samples_per_s']:.1f} | "
            f"{share:.0%} | {row['first_step_s']:.1f} s | {row['whole_s']:.1f} s | {row['peak_gb']:.1f} GB |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what was asked for, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, help="folder of the models, written where they are missing")
    parser.add_argument("--jobs", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--tiny", action="store_true", help="everything at tiny size, for a CPU")
    arguments = parser.parse_args()
    if not (arguments.tiny or arguments.checkpoints):
        parser.error("--checkpoints is needed")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(arguments.checkpoints or Path(folder), arguments.jobs, tiny=arguments.tiny):
            found.append(row)
            print(json.dumps(row), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=1))
    print(markdown(found))


if __name__ == "__main__":
    main()
