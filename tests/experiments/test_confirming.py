"""The winner of a sweep is called better when other seeds say so, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments.test_sweep import START, TASK, colours, photos
from tests.training.conftest import outspoken
from vlm_tune.data import Dataset
from vlm_tune.errors import EvaluationError, StorageError, TrainingError
from vlm_tune.experiments import Choice, Confirmation, Sweep, SweepResult
from vlm_tune.experiments.backends import go_on
from vlm_tune.experiments.confirming import Again, Trainings
from vlm_tune.experiments.space import Setting
from vlm_tune.experiments.sweep import held_out
from vlm_tune.experiments.trials import Score, Training
from vlm_tune.statistics import wilson
from vlm_tune.training import LoRATrainer
from vlm_tune.vlm import VLM

# So slow that it learns nothing.
SLOW = START.model_copy(update={"learning_rate": 1e-6, "epochs": 3.0, "batch_size": 4})


def scores(*right: int, n: int = 60) -> tuple[Score, ...]:
    return tuple(Score(rightness=tuple(place < count for place in range(n))) for count in right)


def confirmation(winner: tuple[Score, ...], start: tuple[Score, ...], *, fresh: bool = False) -> Confirmation:
    return Confirmation(
        seeds=(1, 2, 3), winner=winner, start=start, num_compared=12, chosen_at=wilson(57, 60), fresh=fresh
    )


@pytest.fixture(scope="module")
def trainer(tiny_qwen3_vl: Path, tmp_path_factory: pytest.TempPathFactory) -> LoRATrainer:
    return LoRATrainer(VLM(outspoken(tiny_qwen3_vl, tmp_path_factory.mktemp("models") / "bold")), SLOW)


@pytest.fixture(scope="module")
def swept(trainer: LoRATrainer, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    sweep = Sweep({"learning_rate": Choice(1e-6, 1e-2)}, num_trials=2, validation=1 / 3)
    result = sweep.run(trainer, colours(), run_dir=tmp_path_factory.mktemp("sweep"))
    assert not result.best.is_start
    return result


@pytest.fixture(scope="module")
def confirmed(swept: SweepResult, trainer: LoRATrainer) -> SweepResult:
    return swept.confirm(trainer, colours(), seeds=(1, 2, 3))


def test_both_are_trained_again_with_the_same_seeds(confirmed: SweepResult, swept: SweepResult) -> None:
    again = confirmed.confirmation
    assert again is not None
    assert again.seeds == (1, 2, 3)
    assert [len(one.rightness) for one in (*again.winner, *again.start)] == [6] * 6
    assert again.chosen_at == swept.best.accuracy
    assert again.num_compared == 2
    assert again.difference.value == pytest.approx(again.winner_accuracy - again.start_accuracy)
    assert again.difference.value > 0
    assert again.sentence in confirmed.sentence
    assert "not established: confirm() trains both again" in swept.sentence


def test_what_is_finished_is_kept_and_no_adapter_is(
    confirmed: SweepResult, swept: SweepResult, trainer: LoRATrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = swept.run_dir / "confirm"
    kept = sorted(path.name.rpartition("-")[0] for path in folder.iterdir())
    assert kept == [f"{side}-{seed}" for side in ("start", "winner") for seed in (1, 2, 3)]
    assert all(path.suffix == ".json" for path in folder.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(VLM, "load", lambda self: pytest.fail("loaded"))
        assert swept.confirm(trainer, colours(), seeds=(1, 2, 3)) == confirmed
    broken = next(folder.glob("winner-1-*.json"))
    written = broken.read_text(encoding="utf-8")
    try:
        broken.write_text('{"notes": 1}', encoding="utf-8")
        with pytest.raises(StorageError, match="holds something else than a score"):
            swept.confirm(trainer, colours(), seeds=(1, 2, 3))
    finally:
        broken.write_text(written, encoding="utf-8")


def test_other_photos_may_judge(swept: SweepResult, trainer: LoRATrainer, tmp_path: Path) -> None:
    others = Dataset(photos(3, first=20), task=TASK)
    parts, _ = held_out(colours(), share=1 / 3, seed=0)
    work = Trainings(Training(trainer, parts), others, tmp_path)
    unit = Again("start", 4, Setting(config=SLOW.model_copy(update={"epochs": 1.0}), max_pixels=256))
    score = work(unit, go_on)
    assert len(score.rightness) == 9
    assert work.kept(unit) == score
    assert Trainings(Training(trainer, parts), None, tmp_path).kept(unit) is None
    # The same photos, of which a sweep with another seed has held out others.
    elsewhere, _ = held_out(colours(), share=1 / 3, seed=1)
    assert sorted(elsewhere.ids) == sorted(parts.ids)
    assert sorted(elsewhere.validation.ids) != sorted(parts.validation.ids)
    assert Trainings(Training(trainer, elsewhere), others, tmp_path).kept(unit) is None


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        ((1, 2), "three or more different seeds"),
        ((1, 1, 2), "three or more different seeds"),
        ((0, 1, 2), "was chosen with seed 0"),
    ],
)
def test_seeds_that_say_nothing_are_refused(
    swept: SweepResult, trainer: LoRATrainer, seeds: tuple[int, ...], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        swept.confirm(trainer, colours(), seeds=seeds)


def test_photos_that_the_sweep_has_seen_are_refused(swept: SweepResult, trainer: LoRATrainer) -> None:
    seen = Dataset(photos(1), task=TASK)
    with pytest.raises(EvaluationError, match="3 of 3 photos to confirm on were trained on or held out"):
        swept.confirm(trainer, colours(), held_out=seen)
    elsewhere = Dataset(photos(1, first=20), task=TASK.model_copy(update={"prompt": "What else?"}))
    with pytest.raises(EvaluationError, match="answer another question"):
        swept.confirm(trainer, colours(), held_out=elsewhere)


def test_a_training_that_fails_is_told(swept: SweepResult, trainer: LoRATrainer, tmp_path: Path) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise TrainingError("the loss is nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoRATrainer, "fit", fail)
        with pytest.raises(TrainingError, match="the start with seed 7 could not be trained: the loss is nan"):
            swept.confirm(trainer, colours(), seeds=(7, 8, 9), run_dir=tmp_path)


@pytest.mark.parametrize(
    ("winner", "start", "verdict", "words"),
    [
        (scores(58, 57, 58), scores(36, 38, 37), "better", "the winner is 34.4 points ahead of the starting"),
        (scores(36, 38, 37), scores(58, 57, 58), "worse", "34.4 points behind the starting"),
        (scores(50, 52, 51), scores(50, 49, 51), "not_established", r"1.7 points ahead of .*: not established\."),
        (scores(50, 50, 50), scores(50, 50, 50), "not_established", "level with the starting configuration"),
    ],
)
def test_the_verdict(winner: tuple[Score, ...], start: tuple[Score, ...], verdict: str, words: str) -> None:
    again = confirmation(winner, start)
    assert again.verdict == verdict
    assert again.allowing_for_choice.low <= again.difference.low
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(again.sentence)
    assert "It was chosen at 95.0 % and comes to" in again.sentence


def test_photos_that_chose_the_winner_must_say_more_than_others() -> None:
    # One photo in ten more, always the same ones: established on new photos, and not on those that chose it among 12.
    winner, start = scores(52, 52, 52), scores(45, 45, 45)
    fresh, same = confirmation(winner, start, fresh=True), confirmation(winner, start)
    assert fresh.verdict == "better"
    assert same.verdict == "not_established"
    assert "The same photos chose it among 12" in same.sentence
