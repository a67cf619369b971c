import os
import signal
import threading
from collections.abc import Iterator

import pytest

from vlm_tune.training.running.signals import listening


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """Signals that come through to whoever listened before."""
    came: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGTERM, before)


def term() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_the_first_signal_is_noted_and_the_second_comes_through(heard: list[int]) -> None:
    with listening() as ending:
        assert not ending.asked
        term()
        assert ending.asked and not heard
        term()
    assert heard == [signal.SIGTERM]


def test_of_several_processes_none_dies_of_what_the_launcher_passes_on(
    heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(variable, value)
    with listening() as ending:
        term()
        term()
        assert ending.asked
    assert not heard


def test_afterwards_everything_is_as_before(heard: list[int]) -> None:
    with pytest.raises(ValueError, match="stop"), listening() as ending:
        raise ValueError("stop")
    term()
    assert heard == [signal.SIGTERM] and not ending.asked


def test_other_threads_leave_signals_alone(heard: list[int]) -> None:
    inside, over = threading.Event(), threading.Event()

    def listen() -> None:
        with listening():
            inside.set()
            over.wait(10)

    thread = threading.Thread(target=listen)
    thread.start()
    assert inside.wait(10)
    term()
    over.set()
    thread.join()
    assert heard == [signal.SIGTERM]
