"""Gemini without and with examples on a folder of photos, side by side: what it answers, what it costs.

    GEMINI_API_KEY=... python examples/compare_with_gemini.py photos/ [--model gemini-3-flash-preview] [--most 1.00]

The folder has a folder of photos for each class. Answers are kept in `runs/gemini`: run it again and nothing is
paid twice. Without a key it says what to set, and sends nothing.
"""

import argparse
import os
import sys
from pathlib import Path

import vlm_tune as vt
from vlm_tune.predictors import GeminiOptions

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("photos", type=Path, help="a folder of photos for each class")
parser.add_argument("--model", default="gemini-3-flash-preview")
parser.add_argument("--prompt", default="What does this photo show?")
parser.add_argument("--shots", type=int, default=6, help="examples shown in the second round")
parser.add_argument("--most", type=float, default=1.0, help="dollars that each round may cost at most")
parser.add_argument("--base-url", help="another server than Google's")
arguments = parser.parse_args()

if not os.environ.get("GEMINI_API_KEY", "").strip():
    sys.exit(
        "This asks the real Gemini and needs a key: make one at https://aistudio.google.com/apikey and set the "
        "environment variable GEMINI_API_KEY. Nothing was sent."
    )

classes = tuple(sorted(folder.name for folder in arguments.photos.iterdir() if folder.is_dir()))
task = vt.Task(prompt=arguments.prompt, classes=classes)
data = vt.Dataset.from_folder(arguments.photos, task=task).split(test=0.25, seed=0)
options = GeminiOptions(max_cost_usd=arguments.most, max_output_tokens=2000)

plain = vt.Gemini(arguments.model, options=options, base_url=arguments.base_url)
shots = vt.few_shot(data.train, arguments.shots)
shown = vt.Gemini(arguments.model, options=options, base_url=arguments.base_url, shots=shots)
for gemini in (plain, shown):
    print(gemini.estimate(data.test, task))

evaluator = vt.Evaluator(data.test, run_dir="runs/gemini")
floor = evaluator.run(vt.Baseline.majority(data.train))
without = evaluator.run(plain)
with_shots = evaluator.run(shown)
verdict = vt.Comparison(candidate=with_shots, reference=without)
verdict.show()
report = vt.Report([floor, without, with_shots], sections=[verdict]).save("runs/gemini/report.html")
print(f"The whole story: {report}")
