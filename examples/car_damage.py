"""The car-damage experiment, from COCO annotations to the report: is a small model, tuned on a few hundred photos, enough?

    export GEMINI_API_KEY=...
    python examples/car_damage.py train=CarDD_COCO/annotations/instances_train2017.json \\
        val=CarDD_COCO/annotations/instances_val2017.json test=CarDD_COCO/annotations/instances_test2017.json

CarDD (Wang, Li and Wu 2023) is handed out by its authors on request; any COCO file with marks of the classes will do. One
file without a split's name is split here. Photos whose marks are of several classes, or of classes not asked for, are left
out, and so many of each class are drawn. Without a key Gemini is left out. Everything is kept in `--run-dir`: stop it and
run the same line again, and nothing is trained or paid twice.
"""

import argparse
import os
from pathlib import Path

import vlm_tune as vt

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("coco", nargs="+", metavar="[SPLIT=]FILE", help="COCO annotations: one file, or one for each split")
parser.add_argument("--images", help="the folder of the photos; by default COCO's own layout is expected")
parser.add_argument("--classes", nargs="+", default=["crack", "dent", "scratch"])
parser.add_argument("--prompt", default="What kind of damage does this photo show?")
parser.add_argument("--per-class", type=int, default=139, help="photos of each class, at most")
parser.add_argument("--test", type=float, default=0.25, help="share of the photos to test on, where one file is given")
parser.add_argument("--model", default="Qwen/Qwen3-VL-8B-Instruct", help="an id on the hub, or a folder")
parser.add_argument("--gemini", default="gemini-3-flash-preview", help="the model of the API")
parser.add_argument("--gemini-key", default=os.environ.get("GEMINI_API_KEY"), help="better left in GEMINI_API_KEY")
parser.add_argument("--base-url", help="another server than Google's")
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--learning-rate", type=float, default=2e-4)
parser.add_argument("--run-dir", type=Path, default=Path("runs/car_damage"))
arguments = parser.parse_args()

named = dict(word.split("=", 1) for word in arguments.coco if "=" in word)
if len(arguments.coco) > max(1, len(named)):
    parser.error("several files need a split each: train=FILE test=FILE")

task = vt.Task(prompt=arguments.prompt, classes=tuple(arguments.classes))
data = vt.Dataset.from_coco(named or arguments.coco[0], task=task, images=arguments.images, other="exclude")
data = data.limit(arguments.per_class, seed=0)
if not named:
    data = data.split(test=arguments.test, seed=0)
profile = vt.profile(data)
profile.show()

leakage = vt.LeakageChecker().check(data)
leakage.show()                                          # photos of one car on both sides of the split
data = leakage.resolve(data)
print(data)

evaluator = vt.Evaluator(data.test, run_dir=arguments.run_dir)
base = vt.VLM(arguments.model)
floor = evaluator.run(vt.Baseline.majority(data.train))
rivals = {"base": evaluator.run(base)}
if arguments.gemini_key:
    gemini = vt.Gemini(arguments.gemini, api_key=arguments.gemini_key, base_url=arguments.base_url)
    rivals["gemini"] = evaluator.run(gemini)
else:
    print("GEMINI_API_KEY is not set: Gemini is left out.")

rate, epochs = arguments.learning_rate, arguments.epochs
config = vt.TrainConfig(r=64, lora_alpha=16, learning_rate=rate, batch_size=4, epochs=epochs)
trainer = vt.LoRATrainer(base, config)
plan = trainer.plan(data.train)
plan.show()                                             # before anything is paid for
overfit = trainer.overfit(data.train)
overfit.raise_if_failed()
adapter = trainer.fit(data.train, run_dir=arguments.run_dir)
tuned = adapter.merge(arguments.run_dir / "merged")     # proved equal to the adapter, or it raises
after = evaluator.run(tuned)

comparisons = {name: vt.Comparison(candidate=after, reference=rival) for name, rival in rivals.items()}
for name, comparison in comparisons.items():
    comparison.show()                                   # wins, losses, interval, exact McNemar, verdict
    comparison.examples().save(arguments.run_dir / f"tuned_against_{name}.csv")
sections = [profile, leakage, plan, overfit, adapter, *comparisons.values()]
report = vt.Report([floor, *rivals.values(), after], sections=sections).save(arguments.run_dir / "report.html")
print(f"The whole story: {report}")
