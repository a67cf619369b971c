"""Asked once, kept at once, and gone on with after anything."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, PredictorError, StorageError
from vlm_tune.evaluation import Evaluator
from vlm_tune.predictors import Baseline, Gemini
from vlm_tune.records import Example, Prediction, Usage
from vlm_tune.task import Task
from vlm_tune.testing import FakeGeminiServer, ScriptedPredictor, tiny_dataset


@pytest.fixture
def data() -> Dataset:
    return tiny_dataset(4, split=False)


def oracle() -> ScriptedPredictor:
    return ScriptedPredictor(lambda example: example.label, name="oracle")


def test_every_predictor_is_evaluated_alike(data: Dataset) -> None:
    evaluation = Evaluator(data).run(oracle())
    assert evaluation.accuracy.value == 1
    assert evaluation.name == "oracle"
    assert evaluation.example_ids == list(data.ids)
    assert (evaluation.dataset_fingerprint, evaluation.task) == (data.fingerprint, data.task)
    assert evaluation.wall_s is not None
    assert Evaluator(data).run(Baseline.random(0)).accuracy.n == len(data)


def test_a_second_run_asks_nothing_and_says_the_same(data: Dataset, tmp_path: Path) -> None:
    first = Evaluator(data, run_dir=tmp_path).run(oracle())
    again = oracle()
    second = Evaluator(data, run_dir=tmp_path).run(again)
    assert again.asked == []
    assert second.to_dict() == first.to_dict()
    [journal] = (tmp_path / "predictions").iterdir()
    assert journal.name == f"oracle-{again.fingerprint[:8]}.jsonl"


def test_another_prompt_and_another_predictor_are_asked_anew(data: Dataset, tmp_path: Path) -> None:
    Evaluator(data, run_dir=tmp_path).run(oracle())
    reworded = Dataset(data.examples, task=Task(prompt="Colour?", classes=data.task.classes))
    for dataset, fingerprint in ((reworded, None), (data, "another")):
        predictor = ScriptedPredictor(lambda example: example.label, name="oracle", fingerprint=fingerprint)
        Evaluator(dataset, run_dir=tmp_path).run(predictor)
        assert len(predictor.asked) == len(data)


def test_only_new_images_are_asked_and_a_renamed_one_is_not_new(data: Dataset, tmp_path: Path) -> None:
    Evaluator(data.filter(lambda example: example.id != "red/0.png"), run_dir=tmp_path).run(oracle())
    renamed = [example.model_copy(update={"id": f"moved/{example.id}"}) for example in data]
    predictor = oracle()
    Evaluator(Dataset(renamed, task=data.task), run_dir=tmp_path).run(predictor)
    assert predictor.asked == ["moved/red/0.png"]


def test_failures_are_asked_again_and_other_outcomes_are_not(data: Dataset, tmp_path: Path) -> None:
    outcomes = {
        "red/0.png": Prediction(example_id="red/0.png", outcome="failed", error="503"),
        "red/1.png": Prediction(example_id="red/1.png", outcome="refused", error="SAFETY"),
        "red/2.png": "no idea",
    }
    evaluator = Evaluator(data, run_dir=tmp_path, min_coverage=0.5)
    first = evaluator.run(ScriptedPredictor(lambda e: outcomes.get(e.id, e.label), name="oracle"))
    assert dict(first.outcomes) == {"answered": 9, "unparseable": 1, "refused": 1, "failed": 1}
    predictor = oracle()
    second = evaluator.run(predictor)
    assert predictor.asked == ["red/0.png"]
    assert (second.outcomes["failed"], second.accuracy.n) == (0, 12)


def test_the_same_image_is_asked_and_paid_once(data: Dataset) -> None:
    twin = Example(id="twin", image=data[0].image, label="blue")
    doubled = Dataset([*data, twin], task=data.task)
    asked = []

    def answer(example: Example) -> Prediction:
        asked.append(example.id)
        usage = Usage(input_tokens=100)
        return Prediction(
            example_id=example.id, outcome="answered", label="red", usage=usage, cost_usd=0.01, latency_s=0.1
        )

    evaluation = Evaluator(doubled).run(ScriptedPredictor(answer))
    assert asked == list(data.ids)
    assert evaluation.num_examples == len(data) + 1
    assert evaluation.cost_usd == pytest.approx(0.01 * len(data))
    assert [p.label for p in evaluation.predictions][-1] == "red"


def test_missing_and_corrupt_images_fail_with_the_reason(data: Dataset, tmp_path: Path) -> None:
    gone = Example(id="gone", image=tmp_path / "gone.png", label="red")
    broken = Example(id="broken", image=b"\x89PNG\r\n\x1a\nbroken", label="red")
    dataset = Dataset([*data, gone, broken], task=data.task)
    with FakeGeminiServer("red") as server:
        predictor = Gemini("gemini-3-flash-preview", api_key="key", base_url=server.url)
        evaluation = Evaluator(dataset, min_coverage=0.5).run(predictor)
    errors = {p.example_id: str(p.error) for p in evaluation.predictions if p.outcome == "failed"}
    assert set(errors) == {"gone", "broken"}
    assert "gone.png" in errors["gone"]
    assert len(server.requests) == len(data)


def test_too_many_failures_leave_no_accuracy(data: Dataset) -> None:
    silent = ScriptedPredictor({example.id: example.label for example in data[:6]})
    evaluation = Evaluator(data).run(silent)
    assert evaluation.coverage == 0.5
    with pytest.raises(EvaluationError, match=r"coverage 50\.0% is below 95\.0%"):
        evaluation.accuracy
    assert evaluation.accuracy_bounds == (0.5, 1.0)


class Careless:
    """Skips the first example and says nothing of it."""

    name = fingerprint = "careless"

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        for example in examples[1:]:
            yield Prediction(example_id=example.id, outcome="answered", label=example.label)


def test_an_example_without_an_answer_is_missing(data: Dataset) -> None:
    evaluation = Evaluator(data, min_coverage=0.5).run(Careless())
    assert [p.error for p in evaluation.predictions if p.outcome == "failed"] == ["the predictor gave no answer"]


@pytest.mark.parametrize(
    ("prediction", "reason"),
    [
        (Prediction(example_id="red/9.png", outcome="refused"), "without being asked"),
        (Prediction(example_id="red/0.png", outcome="answered", label="pink"), "none of the classes"),
        (
            Prediction(example_id="red/0.png", outcome="answered", label="red", scores={"red": 0.0}),
            "scores for",
        ),
    ],
)
def test_a_predictor_that_breaks_its_word_is_named(data: Dataset, prediction: Prediction, reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason) as caught:
        Evaluator(data).run(ScriptedPredictor(lambda example: prediction, name="sloppy"))
    assert "sloppy" in str(caught.value)


def test_a_score_that_is_no_number_makes_a_failure(data: Dataset, tmp_path: Path) -> None:
    def answer(example: Example) -> Prediction:
        scores = dict.fromkeys(data.task.classes, float("nan"))
        return Prediction(example_id=example.id, outcome="answered", label="red", scores=scores)

    evaluation = Evaluator(data, run_dir=tmp_path).run(ScriptedPredictor(answer))
    assert evaluation.outcomes["failed"] == len(data)


@pytest.mark.parametrize("error", [PredictorError("no such model"), KeyboardInterrupt()])
def test_what_was_answered_before_an_interruption_is_kept(data: Dataset, tmp_path: Path, error: BaseException) -> None:
    third = data[2].id
    stopping = ScriptedPredictor(lambda e: error if e.id == third else e.label, name="oracle")
    with pytest.raises(type(error)):
        Evaluator(data, run_dir=tmp_path).run(stopping)
    predictor = oracle()
    evaluation = Evaluator(data, run_dir=tmp_path).run(predictor)
    assert predictor.asked == list(data.ids[2:])
    assert evaluation.accuracy.n == len(data)


SLOW_RUN = """
import sys, time
from vlm_tune.evaluation import Evaluator
from vlm_tune.testing import ScriptedPredictor, tiny_dataset

def answer(example):
    with open(sys.argv[2], "a") as log:
        log.write(example.id + "\\n")
    time.sleep(0.02)
    return example.label

data = tiny_dataset(12, split=False)
evaluation = Evaluator(data, run_dir=sys.argv[1]).run(ScriptedPredictor(answer, name="oracle"))
print(evaluation.accuracy)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    log = tmp_path / "asked"
    command = [sys.executable, "-c", SLOW_RUN, str(tmp_path), str(log)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not log.exists() or len(log.read_text().splitlines()) < 12:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.000 [0.904, 1.000] (n=36)"
    asked = log.read_text().splitlines()
    assert len(set(asked)) == 36
    assert len(asked) <= 37, "at most the one in flight at the kill is asked twice"


FULL_DISK = """
import resource, sys
from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Evaluator
from vlm_tune.testing import ScriptedPredictor, tiny_dataset
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
predictor = ScriptedPredictor(lambda example: example.label, name="oracle")
try:
    Evaluator(tiny_dataset(40, split=False), run_dir=sys.argv[1]).run(predictor)
except StorageError as error:
    print(len(predictor.asked))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_stops_the_run_and_keeps_its_answers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    asked = int(done.stdout)
    assert 5 < asked < 120
    predictor = oracle()
    Evaluator(tiny_dataset(40, split=False), run_dir=tmp_path).run(predictor)
    assert len(predictor.asked) == 120 - (asked - 1)


def test_two_runs_do_not_share_a_journal(data: Dataset, tmp_path: Path) -> None:
    inner = Evaluator(data, run_dir=tmp_path)

    def answer(example: Example) -> str:
        inner.run(oracle())
        return example.label

    with pytest.raises(StorageError, match="in use by another run"):
        inner.run(ScriptedPredictor(answer, name="oracle"))


def test_a_name_that_is_no_file_name_is_made_one(data: Dataset, tmp_path: Path) -> None:
    predictor = ScriptedPredictor(lambda e: e.label, name="Qwen/../[Größe] 8B")
    Evaluator(data, run_dir=tmp_path).run(predictor)
    [journal] = (tmp_path / "predictions").iterdir()
    assert journal.name == f"qwen-gr-e-8b-{predictor.fingerprint[:8]}.jsonl"


def test_who_asks_is_one_of_three(data: Dataset) -> None:
    everybody = oracle()
    everybody.asked_by = "everybody"  # type: ignore[attr-defined]
    with pytest.raises(EvaluationError, match="oracle: asked_by is 'one', 'each' or 'all', not 'everybody'"):
        Evaluator(data).run(everybody)


def test_coverage_is_a_share(data: Dataset) -> None:
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        Evaluator(data, min_coverage=95)


def test_faults_on_the_way_cost_no_answer(data: Dataset, tmp_path: Path) -> None:
    faults = ["unavailable", "reset", None, "rate_limit"]
    with FakeGeminiServer("red", faults=faults) as server:  # type: ignore[arg-type]
        predictor = Gemini("gemini-3-flash-preview", api_key="key", base_url=server.url)
        evaluation = Evaluator(data, run_dir=tmp_path).run(predictor)
        asked = len(server.requests)
        again = Evaluator(data, run_dir=tmp_path).run(predictor)
        assert len(server.requests) == asked == len(data) + 3
    assert evaluation.accuracy.value == pytest.approx(1 / 3)
    assert evaluation.model_versions == ("gemini-3-flash-preview-001",)
    assert again.cost_usd == evaluation.cost_usd
    assert again.wall_s == evaluation.wall_s


class Noting(ScriptedPredictor):
    """Keeps notes in the folder it is given."""

    def with_state(self, folder: Path) -> ScriptedPredictor:
        folder.mkdir(parents=True)
        (folder / "note.txt").write_text(self.name)
        return self


def test_a_predictor_with_notes_of_its_own_gets_a_folder_for_them(data: Dataset, tmp_path: Path) -> None:
    predictor = Noting(lambda example: example.label)
    assert Evaluator(data).run(predictor).accuracy.value == 1
    Evaluator(data, run_dir=tmp_path).run(predictor)
    assert (tmp_path / "state" / predictor.fingerprint / "note.txt").read_text() == "scripted"
