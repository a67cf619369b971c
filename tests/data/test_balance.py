from __future__ import annotations

import pytest

from vlm_tune.data import Dataset
from vlm_tune.errors import SplitError
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="?", classes=("a", "[b]b[/b]", "empty"))


def dataset() -> Dataset:
    """Ten photos: 4 of 6 `a` and 3 of 4 `b` for training; group g0 crosses, g1 does not."""
    rows = [("a", "train")] * 4 + [("a", "test")] * 2 + [("[b]b[/b]", "train")] * 3 + [("[b]b[/b]", "test")]
    groups = {3: "g0", 4: "g0", 6: "g1", 7: "g1"}
    examples = [Example(id=f"{n}", image=b"", label=label, group=groups.get(n)) for n, (label, _) in enumerate(rows)]
    return Dataset(examples, task=TASK, splits={f"{n}": split for n, (_, split) in enumerate(rows)})  # type: ignore[misc]


def test_shares_of_each_class() -> None:
    balance = dataset().balance()
    assert balance.counts == {
        "a": {"train": 4, "test": 2},
        "[b]b[/b]": {"train": 3, "test": 1},
        "empty": {"train": 0, "test": 0},
    }
    assert balance.sizes == {"train": 7, "test": 3}
    assert balance.asked == {"train": 0.7, "test": 0.3}
    assert balance.share("a", "test") == pytest.approx(1 / 3)
    assert balance.share("empty", "test") == 0
    assert (balance.num_groups, balance.num_whole_groups) == (2, 1)


def test_the_largest_deviation_is_from_what_was_asked() -> None:
    worst = dataset().balance(test=0.5).largest_deviation
    assert (worst.label, worst.share, worst.asked) == ("[b]b[/b]", 0.75, 0.5)
    assert worst.points == pytest.approx(25)
    assert abs(dataset().balance().largest_deviation.points) == pytest.approx(5)
    with pytest.raises(SplitError, match="less than 1"):
        dataset().balance(test=1.5)


def test_show_and_frame(capsys: pytest.CaptureFixture[str]) -> None:
    balance = dataset().balance(test=0.25)
    balance.show()
    shown = capsys.readouterr().out
    assert "[b]b[/b]" in shown
    assert "33.3 %" in shown
    assert "Largest deviation: -8.3 points, a in train (66.7 % for 75.0 %)." in shown
    assert "1 of 2 groups lie in one split." in shown
    assert balance.frame().loc["a"].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_without_splits_there_is_none() -> None:
    with pytest.raises(SplitError, match=r"call split\(\) first"):
        Dataset(dataset().examples, task=TASK).balance()


def test_photos_in_no_split_do_not_count() -> None:
    splits = {example_id: split for example_id, split in dataset().splits.items() if example_id != "0"}
    assert Dataset(dataset().examples, task=TASK, splits=splits).balance().counts["a"] == {"train": 3, "test": 2}
