"""The quickstart: the whole experiment on a folder of photos, as it stands in the README."""

import vlm_tune as vt

task = vt.Task(prompt="What kind of damage does this photo show?", classes=("crack", "dent", "scratch"))
data = vt.Dataset.from_folder("photos/", task=task).split(test=0.25, seed=0)
vt.profile(data).show()

leakage = vt.LeakageChecker().check(data)
leakage.show()                                         # histogram, tiers, the pairs side by side
data = leakage.resolve(data)                           # regroup, or drop the train twin, or drop the test image

evaluator = vt.Evaluator(data.test, run_dir="runs/damage")
base = vt.VLM("Qwen/Qwen3-VL-8B-Instruct")
before = evaluator.run(base)
floor = evaluator.run(vt.Baseline.majority(data.train))
gemini = evaluator.run(vt.Gemini("gemini-3-flash-preview"))

trainer = vt.LoRATrainer(base, vt.TrainConfig(r=64, lora_alpha=16, learning_rate=2e-4, batch_size=4, epochs=3))
trainer.plan(data.train).show()                        # what is adapted, memory, time, dollars — before paying
trainer.overfit(data.train).raise_if_failed()          # 10 examples, 100 steps: loss ~0 and 10/10 answers right
adapter = trainer.fit(data.train, run_dir="runs/damage")
tuned = adapter.merge("runs/damage/merged")            # a VLM; proved equal to the adapter, or it raises
after = evaluator.run(tuned)

fixed = vt.Comparison(candidate=after, reference=before)     # what fine-tuning fixed and broke
verdict = vt.Comparison(candidate=after, reference=gemini)   # wins, losses, interval, exact McNemar, verdict
verdict.show()
vt.Report([floor, before, gemini, after], sections=[leakage, fixed, verdict, adapter]).save("runs/damage/report.html")
