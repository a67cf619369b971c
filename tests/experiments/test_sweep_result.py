"""What a sweep came to: tables, pictures, words, and its way through a file."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from vlm_tune.errors import StorageError, TrainingError
from vlm_tune.experiments import Choice, LogUniform, SweepResult
from vlm_tune.experiments.confirming import Confirmation
from vlm_tune.experiments.space import Setting, Space
from vlm_tune.experiments.sweep_display import lines_of
from vlm_tune.experiments.trials import Score, Trial
from vlm_tune.plots import figure_to_svg
from vlm_tune.records import Money
from vlm_tune.statistics import wilson
from vlm_tune.task import Task
from vlm_tune.training import Augment, TrainConfig

MIXED = Augment(mixup=0.2)
SPACE = Space(
    {
        "r": Choice(16, 64),
        "use_rslora": Choice(False, True),
        "learning_rate": LogUniform(1e-5, 1e-3),
        "augment": Choice(None, MIXED),
    },
    TrainConfig(r=16, lora_alpha=16, learning_rate=1e-4, epochs=2),
    Task(prompt="?", classes=("crack", "dent")),
)
PHOTOS = 50


def trial(number: int, *, state: str = "finished", right: int = 40, **values: str | float) -> Trial:
    given = {"r": "16", "use_rslora": "no", "learning_rate": 1e-4, "augment": "none", **values}
    setting = SPACE.setting(given)
    answers = np.random.default_rng(number).permutation([place < right for place in range(PHOTOS)])
    score = Score(rightness=tuple(map(bool, answers)), seconds=60.0, cost=Money(usd=0.25, basis="rent"))
    failed, done = state == "failed", 2.0 if state == "finished" else 1.0
    return Trial(
        number=number,
        state=state,  # type: ignore[arg-type]
        values=given,
        config=setting.config,
        max_pixels=setting.max_pixels,
        accuracy=None if failed else score.accuracy,
        score=score if state == "finished" else None,
        after_epochs=() if failed else ((done, right / PHOTOS),),
        seconds=None if failed else 60.0,
        cost=None if failed else score.cost,
        reason={"failed": "cuda:0 ran out of <memory>", "pruned": "behind the median after 1 of 2 epochs"}.get(
            state, ""
        ),
        is_start=number == 0,
    )


def result_of(*trials: Trial, confirmation: Confirmation | None = None) -> SweepResult:
    return SweepResult(
        trials=trials,
        axes=SPACE.axes,
        start=SPACE.start,
        model="Qwen3-VL-8B",
        held_out="50 photos of the validation split",
        validation=0.2,
        seed=0,
        about={"dataset": "one"},
        importance={"learning_rate": 0.8, "r": 0.15, "augment": 0.05},
        run_dir=Path("runs/sweep"),
        adapter=Path("runs/sweep/trials/2/adapter"),
        confirmation=confirmation,
    )


@pytest.fixture
def result() -> SweepResult:
    return result_of(
        trial(0, right=40),
        trial(1, state="failed", r="64"),
        trial(2, right=45, r="64", use_rslora="yes", augment="mixup 0.2"),
        trial(3, state="pruned", right=20, learning_rate=1e-5),
        trial(4, right=45, learning_rate=1e-3),
    )


def test_the_best_is_the_first_of_the_most_accurate(result: SweepResult) -> None:
    assert result.best.number == 2
    assert result.best.config.augment == MIXED
    assert result.num_compared == 4
    assert result.expected.value < 0.9
    assert len(result.finished) == 3


def test_the_table_shows_both_scales_and_which_is_in_force(
    result: SweepResult, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = result.frame().set_index("trial")
    assert list(frame.loc[2, ["alpha_over_r", "alpha_over_sqrt_r", "scale"]]) == [0.25, 2.0, 2.0]
    assert list(frame.loc[0, ["alpha_over_r", "alpha_over_sqrt_r", "scale"]]) == [1.0, 4.0, 1.0]
    assert frame.loc[1, "reason"] == "cuda:0 ran out of <memory>"
    assert math.isnan(frame.loc[1, "accuracy"])
    assert list(frame.loc[2, ["state", "accuracy", "n", "cost_usd"]]) == ["finished", 0.9, 50, 0.25]
    monkeypatch.setenv("COLUMNS", "170")
    result.show()
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    values = "r 64, use_rslora yes, learning_rate 0.0001, augment mixup 0.2"
    assert f"2 90.0 % [78.6, 95.7] 0.25 2* 60 s $0.25 {values}" in rows
    assert any(row.startswith("0 80.0 % [67.0, 88.8] 1* 4 60 s $0.25 start: r 16,") for row in rows)
    assert any(row.startswith("3 40.0 % [27.6, 53.8] 1* 4 60 s $0.25 r 16,") for row in rows)
    assert any("given up behind the median" in row for row in rows)


def test_the_sentence_warns_of_the_winners_luck(result: SweepResult) -> None:
    sentence = result.sentence
    assert sentence.startswith(
        "Trial 2 (r 64, use_rslora yes, learning_rate 0.0001, augment mixup 0.2) is best of 4: 90.0 %"
    )
    assert f"best partly by luck: expect {result.expected.percent()} on other photos." in sentence
    assert sentence.endswith("is not established: confirm() trains both again.")
    assert result_of(trial(0)).sentence.endswith("photos held out. It is the starting configuration.")


def test_epochs_chosen_by_the_same_photos_are_said(result: SweepResult) -> None:
    start = Setting(config=result.start.config.model_copy(update={"keep": "best"}), max_pixels=result.start.max_pixels)
    sentence = result.model_copy(update={"start": start}).sentence
    assert f"{result.expected.percent()} on other photos, or less, as those held out chose the epoch" in sentence


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_confirmation_by_photos_that_chose_epochs_says_so(result: SweepResult, keep: str, fresh: bool) -> None:
    start = Setting(config=result.start.config.model_copy(update={"keep": keep}), max_pixels=result.start.max_pixels)
    sides = [tuple(trial(number, right=right).score for number in range(3)) for right in (45, 40)]
    again = Confirmation(
        seeds=(1, 2, 3), winner=sides[0], start=sides[1], num_compared=4, chosen_at=wilson(45, PHOTOS), fresh=fresh
    )
    sentence = result.model_copy(update={"start": start, "confirmation": again}).sentence
    assert again.sentence in sentence
    assert ("by those photos too, which is not allowed for" in sentence) is (keep == "best" and not fresh)


def test_nothing_finished(result: SweepResult) -> None:
    empty = result_of(trial(0, state="failed"))
    assert empty.sentence == "None of 1 trials was finished."
    with pytest.raises(TrainingError, match="none of 1 trials was finished; the first: cuda:0 ran out of <memory>"):
        _ = empty.best
    empty.show()
    assert figure_to_svg(empty.plot())


def test_the_starting_configuration_needs_no_confirmation() -> None:
    result = result_of(trial(0, right=50), trial(2))
    assert result.expected.value <= 1.0
    assert result.sentence.endswith("It is the starting configuration.")


def test_pictures_show_every_trial(result: SweepResult) -> None:
    coordinates, lines = lines_of(result)
    assert [one.name for one in coordinates] == ["r", "use_rslora", "learning_rate", "augment"]
    assert [height for height, _ in coordinates[2].ticks] == [0.0, 0.5, 1.0]
    assert [words for _, words in coordinates[2].ticks] == ["1e-05", "0.0001", "0.001"]
    assert [line.heights[2] for line in lines] == pytest.approx([0.5, 0.5, 0.5, 0.0, 1.0])
    assert [line.accuracy for line in lines] == [0.8, None, 0.9, 0.4, 0.9]
    assert {line.label for line in lines} == {"", "winner: trial 2", "starting configuration"}
    drawn = figure_to_svg(result.plot())
    for words in (
        "5 trials by setting and accuracy: n = 50 photos held out",
        "winner: trial 2",
        "learning_rate",
        "mixup",
    ):
        assert words in drawn
    bars = figure_to_svg(result.plot_importance())
    assert "3 finished trials" in bars
    assert "80 %" in bars


def test_without_importance_there_is_no_picture_of_it(result: SweepResult) -> None:
    with pytest.raises(TrainingError, match="importance takes five finished trials"):
        result.model_copy(update={"importance": {}}).plot_importance()


def test_a_saved_sweep_is_the_same_sweep(result: SweepResult, tmp_path: Path) -> None:
    score = trial(0).score
    assert score is not None and result.best.accuracy is not None
    again = Confirmation(
        seeds=(1, 2, 3),
        winner=(score,) * 3,
        start=(score,) * 3,
        num_compared=4,
        chosen_at=result.best.accuracy,
        fresh=False,
    )
    whole = result.model_copy(update={"confirmation": again})
    loaded = SweepResult.load(whole.save(tmp_path / "sweep.json"))
    assert loaded == whole
    assert loaded.sentence == whole.sentence
    assert loaded.best.config.augment == MIXED


@pytest.mark.parametrize("text", ["[]", '{"kind": "learning curve"}', '{"kind": "sweep", "trials": 3}'])
def test_what_is_no_sweep_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match="is not a saved sweep"):
        SweepResult.load(tmp_path / "sweep.json")
