from pathlib import Path

import pytest

from vlm_tune.errors import OverfitError
from vlm_tune.training.overfit import GateCheck, OverfitReport


def report(*, blanks: bool) -> OverfitReport:
    checks = (
        GateCheck(name="loss", passed=True, detail="0.0010 nats", hint="raise the rate"),
        GateCheck(name="blanks", passed=blanks, detail="10 of 10 right on blanks", hint="look at the sizes"),
    )
    return OverfitReport(
        num_examples=10,
        example_ids=tuple("abcdefghij"),
        num_steps=2,
        losses=(1.0, 0.001),
        final_loss=0.001,
        num_correct=10,
        num_swapped_correct=10,
        num_blank_correct=4 if blanks else 10,
        blank_limit=7,
        checks=checks,
        seconds=1.0,
    )


def test_a_pass_is_returned() -> None:
    passed = report(blanks=True)
    assert passed.passed
    assert passed.raise_if_failed() is passed


def test_a_failure_names_the_check_and_what_to_look_at() -> None:
    failed = report(blanks=False)
    assert not failed.passed
    with pytest.raises(OverfitError, match="blanks: 10 of 10 right on blanks; look at the sizes") as caught:
        failed.raise_if_failed()
    assert "raise the rate" not in str(caught.value)


def test_show_frame_plot_save_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(blanks=False)
    found.show()
    assert "FAILED" in capsys.readouterr().out
    assert list(found.frame()["loss"]) == [1.0, 0.001]
    assert found.plot().axes
    assert OverfitReport.load(found.save(tmp_path / "overfit.json")) == found
