"""Whatever happens to the process or the disk, an answer that was kept stays readable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_tune.errors import StorageError
from vlm_tune.journal import Journal, journal_key
from vlm_tune.records import Prediction, Usage

KEYS = [journal_key(f"image {number}", "task", "predictor") for number in range(10)]


def answer(example_id: str = "7.jpg", label: str = "dent") -> Prediction:
    return Prediction(example_id=example_id, outcome="answered", label=label)


def test_the_key_depends_on_image_task_and_predictor_and_on_nothing_else() -> None:
    keys = {journal_key(*parts) for parts in (("a", "b", "c"), ("a", "b", "d"), ("a", "d", "c"), ("d", "b", "c"))}
    assert len(keys) == 4
    assert journal_key("ab", "c", "d") != journal_key("a", "bc", "d")


def test_what_is_written_is_read_back_by_the_next(tmp_path: Path) -> None:
    full = Prediction(
        example_id="ünï 1.jpg",
        outcome="answered",
        label="dent",
        scores={"dent": -0.1, "crack": -2.4},
        raw='"dent"\n',
        latency_s=0.25,
        usage=Usage(input_tokens=1180, thinking_tokens=3),
        cost_usd=0.001,
        model_version="x-001",
    )
    with Journal(tmp_path / "deep" / "answers.jsonl") as journal:
        journal.append(KEYS[0], full, elapsed_s=0.5)
        assert journal.get(KEYS[1]) is None
    with Journal(tmp_path / "deep" / "answers.jsonl") as journal:
        entry = journal.get(KEYS[0])
        assert entry is not None
        assert (entry.prediction, entry.elapsed_s) == (full, 0.5)
        assert (len(journal), KEYS[0] in journal, KEYS[1] in journal) == (1, True, False)


def test_entries_come_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl") as journal:
        for key in (KEYS[3], KEYS[1], KEYS[3]):
            journal.append(key, answer(), elapsed_s=0.5)
        journal.sync()
        entries = journal.entries()
        assert [(entry.key, entry.elapsed_s) for entry in entries] == [(KEYS[key], 0.5) for key in (3, 1, 3)]


def test_a_later_answer_replaces_a_failure(tmp_path: Path) -> None:
    with Journal(tmp_path / "a.jsonl") as journal:
        journal.append(KEYS[0], Prediction(example_id="7.jpg", outcome="failed", error="503"))
        journal.append(KEYS[0], answer())
    with Journal(tmp_path / "a.jsonl") as journal:
        entry = journal.get(KEYS[0])
        assert entry is not None
        assert entry.prediction.outcome == "answered"


@given(st.data())
def test_a_file_cut_anywhere_keeps_every_whole_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "a.jsonl"
    ends = []
    with Journal(path) as journal:
        for key in KEYS[:4]:
            journal.append(key, answer())
            ends.append(path.stat().st_size)
    cut = data.draw(st.integers(0, ends[-1]))
    os.truncate(path, cut)
    whole = sum(end <= cut for end in ends)
    with Journal(path) as journal:
        assert [key in journal for key in KEYS[:4]] == [number < whole for number in range(4)]
        journal.append(KEYS[5], answer())
    with Journal(path) as journal:
        assert len(journal) == whole + 1


def test_a_second_writer_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "a.jsonl"),
        pytest.raises(StorageError, match=rf"in use by another run \(process {os.getpid()} on "),
    ):
        Journal(tmp_path / "a.jsonl")
    Journal(tmp_path / "a.jsonl").close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl")
    journal.close()
    journal.close()


@pytest.mark.parametrize("text", ["id,label\n1,dent\n", '{"key": "12"}\n'])
def test_a_file_that_is_not_ours_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(StorageError, match="not a journal"):
        Journal(path)
    assert path.read_text() == text


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.append(KEYS[0], answer())
    with path.open("a") as file:
        file.write("scribble\n")
    with Journal(path) as journal:  # as the last line it may be torn, and is cut off
        journal.append(KEYS[1], answer())
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "scribble\n", *lines[1:]]))
    with pytest.raises(StorageError, match="line 2: not an answer"):
        Journal(path)


def test_a_line_that_was_tampered_with_is_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with Journal(path) as journal:
        journal.append(KEYS[0], answer())
    path.write_text(path.read_text().replace("answered", "guessed"))
    with Journal(path) as journal, pytest.raises(StorageError, match="not an answer"):
        journal.get(KEYS[0])


FULL_DISK = """
import resource, sys
from vlm_tune.journal import Journal, journal_key
from vlm_tune.errors import StorageError
from vlm_tune.records import Prediction
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
kept = 0
with Journal(sys.argv[1]) as journal:
    try:
        while True:
            answer = Prediction(example_id=str(kept), outcome="answered", label="dent")
            journal.append(journal_key(str(kept), "task", "predictor"), answer)
            kept += 1
    except StorageError as error:
        print(kept, "make room" in str(error))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kept, advised = done.stdout.split()
    assert int(kept) > 5
    assert advised == "True"
    with Journal(path) as journal:
        assert len(journal) == int(kept)
        journal.append(KEYS[9], answer())


KILLED = """
import os, signal, sys
from vlm_tune.journal import Journal, journal_key
from vlm_tune.records import Prediction
journal = Journal(sys.argv[1])
for number in range(3):
    answer = Prediction(example_id=str(number), outcome="answered", label="dent")
    journal.append(journal_key(f"image {number}", "task", "predictor"), answer)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_process_loses_nothing_and_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    with Journal(path) as journal:
        assert [key in journal for key in KEYS[:4]] == [True, True, True, False]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot open journal"):
        Journal(tmp_path / "file" / "a.jsonl")


def test_a_journal_without_a_path_answers_alike_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long = answer(label="dent" * 5000)
    with Journal(None) as journal:
        journal.append(KEYS[0], answer(), elapsed_s=1.0)
        journal.append(KEYS[1], long)
        entries = [journal.get(key) for key in KEYS[:3]]
        assert [entry and entry.prediction for entry in entries] == [answer(), long, None]
    assert list(tmp_path.iterdir()) == []


WORKING = """
import sys
from vlm_tune.journal import Journal, journal_key
from vlm_tune.records import Prediction
with Journal(sys.argv[1]) as journal:
    for number in range(100_000):
        key = journal_key(f"image {number}", "task", "predictor")
        if key not in journal:
            label = "dent" * (number % 400 + 1)
            journal.append(key, Prediction(example_id=str(number), outcome="answered", label=label), elapsed_s=0.25)
            print(number, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_any_moment_it_asks_nothing_again_and_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    path, asked = tmp_path / "a.jsonl", []
    for patience in (1, 40, 333, 7):
        command = [sys.executable, "-c", WORKING, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            asked += [int(process.stdout.readline()) for _ in range(patience)]
            process.kill()
            asked += [int(line) for line in process.stdout if line.endswith("\n")]
    assert len(asked) == len(set(asked))
    with Journal(path) as journal:
        entries = [journal.get(journal_key(f"image {number}", "task", "predictor")) for number in asked]
        assert [entry and (entry.prediction.example_id, entry.elapsed_s) for entry in entries] == [
            (str(number), 0.25) for number in asked
        ]
        # An answer that was written but not yet reported may be there too: one for each kill.
        assert len(asked) <= len(journal) <= len(asked) + 4
