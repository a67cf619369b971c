"""Parts of a journal: taken in once, in the order of time, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.errors import StorageError
from vlm_tune.evaluation import Evaluator
from vlm_tune.evaluation.parts import left_over, part_path, take_in
from vlm_tune.journal import Journal, journal_key
from vlm_tune.records import Prediction
from vlm_tune.testing import ScriptedPredictor, tiny_dataset

KEYS = [journal_key(f"image {number}", "task", "predictor") for number in range(5)]
ANSWER = Prediction(example_id="7.jpg", outcome="answered", label="dent")
FAILURE = Prediction(example_id="7.jpg", outcome="failed", error="503")


def write(path: Path, rank: int, *answers: tuple[str, Prediction, float]) -> Path:
    with Journal(part_path(path, rank)) as part:
        for key, prediction, elapsed_s in answers:
            part.append(key, prediction, elapsed_s=elapsed_s)
    return part_path(path, rank)


def test_times_add_up_to_those_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "model-1a2b3c4d.jsonl"
    write(path, 0, (KEYS[0], ANSWER, 1.0), (KEYS[1], ANSWER, 1.0), (KEYS[2], ANSWER, 1.0))
    write(path, 1, (KEYS[3], ANSWER, 0.5), (KEYS[4], ANSWER, 2.0))
    with Journal(path) as journal:
        assert take_in(journal, left_over(path)) == 5
        found = [(entry.key, entry.elapsed_s) for entry in journal.entries()]
    assert found == [(KEYS[3], 0.5), (KEYS[0], 0.5), (KEYS[1], 1.0), (KEYS[4], 0.5), (KEYS[2], 0.5)]
    assert [file.name for file in tmp_path.iterdir()] == ["model-1a2b3c4d.jsonl"]


def test_what_was_taken_in_before_a_kill_is_not_taken_in_again(tmp_path: Path) -> None:
    path = tmp_path / "model.jsonl"
    write(path, 0, (KEYS[0], ANSWER, 1.0), (KEYS[1], FAILURE, 1.0))
    write(path, 1, (KEYS[2], ANSWER, 4.0))
    with Journal(path) as journal:
        journal.append(KEYS[0], ANSWER, elapsed_s=1.0)
        journal.append(KEYS[2], FAILURE)
        take_in(journal, left_over(path))
        found = [journal.get(key) for key in KEYS[:3]]
        assert len(list(journal.entries())) == 4
    assert [(one.prediction.outcome, one.elapsed_s) for one in found if one] == [
        ("answered", 1.0),
        ("failed", 1.0),
        ("answered", 2.0),
    ]


def test_parts_of_another_journal_are_left_alone(tmp_path: Path) -> None:
    part = write(tmp_path / "model-[a].jsonl", 0, (KEYS[0], ANSWER, 1.0))
    write(tmp_path / "model-a.jsonl", 0, (KEYS[0], ANSWER, 1.0))
    assert left_over(tmp_path / "model-[a].jsonl") == [part]


def test_a_part_that_somebody_writes_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.jsonl"
    write(path, 0, (KEYS[0], ANSWER, 1.0))
    with Journal(part_path(path, 1)), Journal(path) as journal:
        with pytest.raises(StorageError, match="in use by another run"):
            take_in(journal, left_over(path))
        assert len(left_over(path)) == 2


def test_one_process_goes_on_with_the_parts_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny_dataset(4, split=False)
    oracle = ScriptedPredictor(lambda example: example.label, name="oracle")
    first = Evaluator(data, run_dir=tmp_path).run(oracle)
    [journal] = (tmp_path / "predictions").iterdir()
    journal.rename(part_path(journal, 1))
    with part_path(journal, 1).open("a") as torn:
        torn.write('{"key": "0123')
    again = ScriptedPredictor(lambda example: example.label, name="oracle")
    second = Evaluator(data, run_dir=tmp_path).run(again)
    assert second.table.equals(first.table) and second.wall_s == pytest.approx(first.wall_s)
    assert again.asked == []
    assert "took in 12 answers of several processes" in capsys.readouterr().err
