"""The scaling experiment on CIFAR-100: zero-shot accuracy, and LoRA at growing sizes with and without augmentation.

    python benchmarks/cifar100_pretrain.py --data cifar100/ --out models/cifar-lfm2-vl
    python benchmarks/cifar100_experiment.py --data cifar100/ --model models/cifar-lfm2-vl --out runs/cifar [--gpus 4]
    python benchmarks/cifar100_experiment.py --data cifar100/ --model models/cifar-lfm2-vl --out runs/cifar --alone
    python benchmarks/cifar100_results.py runs/cifar

Each variant and seed is a process of its own, which trains its sizes one after the other, the smallest first; several
of them share a GPU. What is finished is kept, and the same command goes on. `--alone` asks the model as it is and takes
times, with nothing else on the GPU. The images that the model was pretrained on are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cifar100_data

import vlm_tune as vt
from vlm_tune import versions

ALL = 0
"""As a size: everything that is left."""
SIZES = (400, 1_000, 2_500, 5_000, ALL)
VARIANTS: dict[str, vt.Augment | None] = {
    "none": None,
    "images": vt.Augment(crop=(0.5, 1.0), flip=True, rand_augment=2),
    "mixup": vt.Augment(mixup=0.4),
    "cutmix": vt.Augment(cutmix=1.0),
}


def config_of(variant: str, given: argparse.Namespace) -> vt.TrainConfig:
    """Return how a variant is trained; all but the augmentation is the same."""
    convolves = vt.VLM(given.model).config.model_type == "lfm2_vl"
    return vt.TrainConfig(
        r=given.rank,
        lora_alpha=given.rank,
        kinds=("attention", "mlp", "conv") if convolves else ("attention", "mlp"),
        learning_rate=given.learning_rate,
        batch_size=given.batch,
        epochs=given.epochs,
        augment=VARIANTS[variant],
    )


def judged(data: vt.Dataset, count: int) -> vt.Dataset:
    """Return the data with at most so many test images, the same ones every time."""
    kept = set(data.test.subset(min(count, len(data.test))).ids)
    return data.without([example for example in data.test.ids if example not in kept])


def lane(given: argparse.Namespace) -> None:
    """Train one variant with one seed at all sizes."""
    variant, seed = given.lane[0], int(given.lane[1])
    _, data = cifar100_data.read(given.data)
    data = judged(data, given.test)
    (given.out / "classes.json").write_text(json.dumps(data.task.classes) + "\n")
    trainer = vt.LoRATrainer(vt.VLM(given.model), config_of(variant, given))
    sizes = [len(data.train) if size == ALL else size for size in given.sizes]
    vt.LearningCurve.run(trainer, data, sizes, [seed], run_dir=given.out / variant / str(seed))


def alone(given: argparse.Namespace) -> None:
    """Ask the model as it is, and take the times of one training and one evaluation with the GPU for themselves."""
    _, data = cifar100_data.read(given.data)
    data = judged(data, given.test)
    base = vt.VLM(given.model)
    evaluator = vt.Evaluator(data.test, run_dir=given.out)
    zero_shot = evaluator.run(base)
    zero_shot.save(given.out / "zero-shot.parquet")
    speeds: dict[str, float] = {}
    for name in ("none", "cutmix"):
        config = config_of(name, given).model_copy(update={"epochs": 2})
        train = data.train.subset(min(given.test, len(data.train)))
        adapter = vt.LoRATrainer(base, config).fit(train, run_dir=given.out / "speed" / name)
        speeds[f"trained, {name}"] = adapter.training.samples_per_second
    began = time.perf_counter()
    vt.Evaluator(data.test).run(adapter)
    speeds["evaluated"] = len(data.test) / (time.perf_counter() - began)
    parameters = sum(one.numel() for one in base.skeleton().parameters())
    told = {
        "machine": versions.hardware(),
        "model": {"architecture": type(base.skeleton()).__name__, "parameters": parameters},
        "trained_parameters": adapter.training.trained_parameters,
        "images": {"train": len(data.train), "test": len(data.test)},
        "config": config_of("none", given).model_dump(mode="json"),
        "images_per_second": speeds,
    }
    (given.out / "alone.json").write_text(json.dumps(told, indent=1) + "\n")


def run(given: argparse.Namespace) -> int:
    """Run all lanes, so many at a time on each GPU and each on cores of its own; return how many failed."""
    given.out.mkdir(parents=True, exist_ok=True)
    places = given.gpus * given.at_once
    cores, free = sorted(os.sched_getaffinity(0)), queue.Queue[int]()
    share = max(1, len(cores) // places)
    for place in range(places):
        free.put(place)
    started = time.monotonic()

    def process(variant: str, seed: int) -> int:
        place, name = free.get(), f"{variant}-{seed}"
        began = time.monotonic()
        own = map(str, cores[place * share : (place + 1) * share] or cores)
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(place % given.gpus), "OMP_NUM_THREADS": str(share)}
        with (given.out / f"{name}.log").open("w") as log:
            command = [sys.executable, __file__, *sys.argv[1:], "--lane", variant, str(seed), "--cores", *own]
            status = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
        free.put(place)
        words, now = "done" if status == 0 else f"FAILED, see {name}.log", time.monotonic()
        print(f"{now - started:5.0f} s  {name}: {words} after {now - began:.0f} s", flush=True)
        return status

    lanes = [(variant, seed) for seed in given.seeds for variant in given.variants]
    with ThreadPoolExecutor(places) as pool:
        return sum(status != 0 for status in pool.map(process, *zip(*lanes, strict=True)))


def main() -> None:
    """Read the command line and run the experiment, or one part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the Parquet files")
    parser.add_argument("--model", type=Path, required=True, help="folder of the pretrained model")
    parser.add_argument("--out", type=Path, required=True, help="folder of all that comes out")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help=f"{ALL}: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--test", type=int, default=4_000, help="test images")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rank", type=int, default=64, help="and alpha, so that the scale is 1")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gpus", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=3, help="processes that share a GPU")
    parser.add_argument("--lane", nargs=2, metavar=("VARIANT", "SEED"), help="run this one alone, here")
    parser.add_argument("--cores", type=int, nargs="+", help="processor cores of that one")
    parser.add_argument("--alone", action="store_true", help="zero-shot and times; nothing else should run")
    given = parser.parse_args()
    if given.cores:
        os.sched_setaffinity(0, given.cores)
    if given.lane:
        lane(given)
    elif given.alone:
        alone(given)
    elif run(given):
        sys.exit(1)


if __name__ == "__main__":
    main()
