"""CIFAR-100 by the number of training images: the model as it is, LoRA at growing sizes, and what augmentation does.

    python examples/cifar100_scaling.py [--model LiquidAI/LFM2-VL-3B] [--data uoft-cs/cifar100] [--sizes 500 1000 ...]

`--data` is an id on the hub, or a folder of Parquet files in its layout (`img`, `fine_label`). Every finished training
is kept in `--run-dir`: stop it and run it again, with more sizes or seeds if you like, and nothing is trained twice.
"""

import argparse
from pathlib import Path

import vlm_tune as vt

AUGMENTS = {
    "none": None,
    "images": vt.Augment(crop=(0.5, 1.0), flip=True, rand_augment=2),
    "mixup": vt.Augment(mixup=0.2),
    "cutmix": vt.Augment(cutmix=1.0),
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default="LiquidAI/LFM2-VL-3B", help="an id on the hub, or a folder")
parser.add_argument("--data", default="uoft-cs/cifar100")
parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1_000, 2_500, 5_000, 10_000], help="training images")
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="two at least")
parser.add_argument("--augment", nargs="+", choices=AUGMENTS, default=list(AUGMENTS))
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--test", type=int, default=2_000, help="test images to judge on, at most")
parser.add_argument("--run-dir", type=Path, default=Path("runs/cifar100"))
arguments = parser.parse_args()

data = vt.Dataset.from_hf(arguments.data, task="What is shown in this photo?", label="fine_label")
beyond = set(data.test.ids) - set(data.test.subset(min(arguments.test, len(data.test))).ids)
data = data.without(beyond)
print(data)

base = vt.VLM(arguments.model)
zero_shot = vt.Evaluator(data.test, run_dir=arguments.run_dir).run(base)
print(f"Zero-shot: {zero_shot.accuracy.percent()}")

plain = vt.TrainConfig(r=64, lora_alpha=16, learning_rate=2e-4, batch_size=64, epochs=arguments.epochs)
vt.LoRATrainer(base, plain).plan(data.train.subset(max(arguments.sizes))).show()

curves = {}
for name in arguments.augment:
    trainer = vt.LoRATrainer(base, plain.model_copy(update={"augment": AUGMENTS[name]}))
    folder = arguments.run_dir / name
    curve = vt.LearningCurve.run(trainer, data, arguments.sizes, arguments.seeds, run_dir=folder)
    curves[name] = curve.model_copy(update={"name": f"{base.name}, augmentation {name}"})
    curves[name].show()                                     # accuracies, growth per doubling, the forecast
    curve.plot(against={"zero-shot": zero_shot.accuracy}).savefig(folder / "curve.png")
    if len(curve.sizes) > 4 and curve.sizes[-1] <= 4 * curve.sizes[-2]:
        curve.hindcast().show()                             # what the smaller sizes alone foretold of the largest

first, *others = arguments.augment
for name in others:
    for size in sorted({*curves[name].sizes} & {*curves[first].sizes}):
        gain = curves[name].gain_over(curves[first], size)  # image by image, with the luck of the seeds
        print(f"{size:,} images: {name} against {first} {gain.points()}, then a gap of {curves[name].gap_at(size).points()}")

report = vt.Report([zero_shot], sections=list(curves.values())).save(arguments.run_dir / "report.html")
print(f"The whole story: {report}")
