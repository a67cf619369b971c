"""A step of somebody else's pipeline: tune on the photos of the week, and say whether the new model may take over.

Nothing is printed and nothing is drawn: what comes back are records, which a scheduler stores as JSON and acts on.

    from embed_in_a_pipeline import answer, tune_and_judge

    decision = tune_and_judge("photos/", task, model="Qwen/Qwen3-VL-8B-Instruct", rival=vt.Gemini(...), run_dir="runs/week")
    if decision.verdict == "better":
        answers = answer(decision.model, task, paths)
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

import vlm_tune as vt


class Decision(BaseModel):
    """What the step found; `decision.model_dump_json()` is what a scheduler keeps."""

    verdict: str
    """`better`, `worse`, `equivalent` or `not_established`; `failed` where there is no verdict."""
    reason: str
    """The verdict in words with its numbers, or the error with its next step."""
    model: Path | None = None
    """The merged model, ready to be served."""
    accuracy: vt.Estimate | None = None
    """Of the tuned model."""
    comparison: dict | None = None
    """Counts, difference with interval, exact McNemar and how many photos would settle it."""
    mistakes: list[dict] = []
    """Photos that the rival got right and the tuned model did not, with both answers."""
    leaked: list[str] = []
    """Test photos that had a copy in training, and were dealt with."""


def tune_and_judge(
    photos: Path | str,
    task: vt.Task,
    *,
    model: Path | str,
    rival: vt.Predictor,
    run_dir: Path | str,
    config: vt.TrainConfig | None = None,
) -> Decision:
    """Tune, merge and compare; an error that the library raises on purpose becomes a decision as well."""
    try:
        with vt.quiet():
            return _judge(photos, task, vt.LoRATrainer(vt.VLM(model), config or vt.TrainConfig()), rival, Path(run_dir))
    except vt.VlmTuneError as error:
        return Decision(verdict="failed", reason=f"{type(error).__name__}: {error}")


def answer(model: Path | str, task: vt.Task, photos: Sequence[Path]) -> list[vt.Prediction]:
    """Ask a model about photos that have no label: a record for each."""
    # An example has a label, and no answer depends on it: the first class stands in.
    examples = [vt.Example(id=str(path), image=path, label=task.classes[0]) for path in photos]
    with vt.quiet():
        return list(vt.VLM(model).predict(examples, task))


def _judge(photos: Path | str, task: vt.Task, trainer: vt.LoRATrainer, rival: vt.Predictor, run_dir: Path) -> Decision:
    data = vt.Dataset.from_folder(photos, task=task).split(test=0.25, seed=0)
    leakage = vt.LeakageChecker().check(data)
    data = leakage.resolve(data)
    tuned = trainer.fit(data.train, run_dir=run_dir).merge(run_dir / "merged")
    evaluator = vt.Evaluator(data.test, run_dir=run_dir)
    after, against = evaluator.run(tuned), evaluator.run(rival)
    found = vt.Comparison(candidate=after, reference=against)
    rows = found.frame()
    lost = rows.loc[rows["tag"] == "reference_only", ["example_id", "truth", "candidate_label", "reference_label"]]
    return Decision(
        verdict=found.verdict,
        reason=found.sentence,
        model=run_dir / "merged",
        accuracy=after.accuracy,
        comparison=found.to_dict(),
        mistakes=lost.to_dict("records"),
        leaked=list(leakage.leaked_test_ids),
    )
