import pytest

from vlm_tune.training.running.foresight import Foresight


def test_steady_steps_foresee_the_whole_run_once() -> None:
    foresight = Foresight(240)
    told = [foresight.over(8 + 0.3 * step) for step in range(1, 241)]
    assert [step for step, seconds in enumerate(told, 1) if seconds is not None] == [8]
    assert told[7] == pytest.approx(8 + 0.3 * 240)


def test_slow_first_steps_do_not_count_twice() -> None:
    foresight = Foresight(100)
    times = [5.0, 6.0, 6.5, 6.8, 7.0, 7.2, 7.4, 7.6]
    assert [foresight.over(time) for time in times][-1] == pytest.approx(7.6 + 0.2 * 92)


@pytest.mark.parametrize("steps", [1, 7, 8])
def test_a_short_run_is_over_before_it_is_foreseen(steps: int) -> None:
    foresight = Foresight(steps)
    assert all(foresight.over(float(step)) is None for step in range(steps))
