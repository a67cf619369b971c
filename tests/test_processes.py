"""Who is who among several processes; what several do together is in the files called test_distributed.py."""

from __future__ import annotations

import pickle
import sys
import threading
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from vlm_tune import _console, _processes
from vlm_tune.errors import ImageError, MissingExtraError, StoppedError

VARIABLES = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


@pytest.fixture
def third_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Clusters set some of them for the launcher itself.
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (_processes.rank(), _processes.world_size(), _processes.is_main()) == (0, 1, True)
    assert _processes.gathered("x") == ["x"] and _processes.first_to_fail()
    _processes.join()
    _processes.barrier()


def test_alone_a_function_is_just_called() -> None:
    def fail() -> None:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        _processes.by_one(fail)()
    assert _processes.by_one(sorted)([3, 1], reverse=True) == [3, 1]
    with pytest.raises(ValueError, match="as it is"), _processes.together() as in_vain:
        assert not in_vain()
        fail()


@pytest.mark.usefixtures("third_of_four")
def test_the_launcher_says_who_is_who() -> None:
    found = _processes.rank(), _processes.world_size(), _processes.local_rank(), _processes.local_world_size()
    assert found == (2, 4, 0, 2)
    assert not _processes.is_main()


@pytest.mark.usefixtures("third_of_four")
def test_what_one_does_for_all_it_does_alone() -> None:
    assert _processes._tried(_processes.world_size) == (1, None)
    assert _processes._tried(_processes.local_world_size) == (2, None)
    assert _processes.world_size() == 4


@pytest.mark.usefixtures("third_of_four")
def test_only_the_first_process_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    _console.show("a table")
    _console.notice("a word")
    _console.stage("a stage")
    with _console.progress("a bar", total=1) as bar:
        bar.advance()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """What a launcher keeps for its processes."""
    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(kept.port))
    return kept


@pytest.mark.usefixtures("third_of_four", "store")
def test_the_others_hear_of_a_failure_when_they_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    seldom = _processes._polled("evaluation")
    monkeypatch.setattr(_processes, "_POLL_S", 0)
    in_vain, elsewhere = _processes._polled("evaluation"), _processes._polled("another")
    assert not in_vain()
    assert _processes._tally("evaluation", 1) == 1
    assert in_vain() and not elsewhere()
    monkeypatch.setattr(_processes, "_POLL_S", 60)
    assert not seldom()


@pytest.mark.usefixtures("third_of_four", "store")
def test_only_the_first_to_fail_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    hook = _processes._telling_once(lambda kind, error, traceback: told.append(str(error)))
    for words in ("the cause", "a consequence"):
        hook(ValueError, ValueError(words), None)
    assert told == ["the cause"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _processes.first_to_fail()
    assert sys.excepthook is not hook


@pytest.mark.parametrize(
    "error",
    [
        ImageError("a.png", "it is torn"),
        MissingExtraError("x", extra="y", purpose="z"),
        StoppedError(step=3, num_steps=9, checkpoints=Path("runs")),
        ValueError("plain"),
    ],
)
def test_an_error_arrives_as_what_it_is(error: Exception) -> None:
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    arrived = pickle.loads(pickle.dumps(_processes.Failure(error))).error  # noqa: S301
    assert type(arrived) is type(error) and str(arrived) == str(error)
    assert vars(arrived) == {name: value for name, value in vars(error).items() if name != "lock"}
