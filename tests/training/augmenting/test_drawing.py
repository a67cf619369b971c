from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from vlm_tune.training.augmenting.drawing import Mix, View, Views, mean_answers
from vlm_tune.training.augmenting.settings import Augment

EVERYTHING = Augment(
    crop=(0.5, 0.9), flip=True, rand_augment=2, colour=0.3, blur=0.02, mixup=0.4, cutmix=1.0, mix_share=0.8
)
ORDER = tuple(range(50))


def views(augment: Augment = EVERYTHING, *, seed: int = 0, epoch: int = 0, times: int = 40) -> list[View]:
    drawn = Views(augment, [1.0] * len(ORDER), seed=seed)
    return [drawn.view(index, epoch=epoch, time=time, order=ORDER) for time in range(times) for index in ORDER]


def test_a_draw_depends_on_seed_epoch_and_example_alone() -> None:
    first = views(times=1)
    drawn = Views(EVERYTHING, [1.0] * len(ORDER), seed=0)
    for index in reversed(ORDER):
        assert drawn.view(index, epoch=0, time=0, order=ORDER) == first[index]
    assert len(set(first)) == len(first)
    assert not set(first) & set(views(times=1, epoch=1))
    assert not set(first) & set(views(times=1, seed=1))
    assert len({drawn.view(3, epoch=0, time=time, order=ORDER) for time in range(9)}) == 9


def test_draws_stay_what_they_are() -> None:
    # A run that was begun by another version must go on with the same photos.
    drawn = Views(Augment(flip=True, colour=0.2, mixup=0.4), [1.0] * 50, seed=7)
    view = drawn.view(4, epoch=1, time=0, order=ORDER)
    assert [change.name for change in view.changes] == ["flip", "contrast", "brightness", "saturation"]
    assert view.mix is not None and (view.mix.index, view.mix.drawn) == (27, 0.99)


def test_changes_come_as_often_and_as_far_as_asked_for() -> None:
    drawn = views(Augment(crop=(0.5, 0.9), flip=True, colour=0.3, blur=0.02))
    names = Counter(change.name for view in drawn for change in view.changes)
    for name in ("flip", "blur"):
        assert names[name] / len(drawn) == pytest.approx(0.5, abs=0.05)
    for name in ("crop", "brightness", "contrast", "saturation"):
        assert names[name] == len(drawn)
    values = [change for view in drawn for change in view.changes]
    areas = [change.values[2] * change.values[3] for change in values if change.name == "crop"]
    assert kstest(areas, "uniform", (0.5, 0.4)).pvalue > 1e-4
    for change in values:
        if change.name == "crop":
            left, top, width, height = change.values
            assert left >= 0 and top >= 0 and left + width <= 1 + 1e-9 and top + height <= 1 + 1e-9
            assert 3 / 4 - 1e-9 <= width / height <= 4 / 3 + 1e-9
        elif change.name == "blur":
            assert 0 <= change.values[0] <= 0.02
        elif change.name != "flip":
            assert 0.7 <= change.values[0] <= 1.3
    orders = {tuple(c.name for c in view.changes if c.name not in ("crop", "flip", "blur")) for view in drawn}
    assert len(orders) == 6


def test_rand_augment_draws_all_its_operations_evenly_and_both_ways() -> None:
    drawn = [change for view in views(Augment(rand_augment=3, magnitude=15)) for change in view.changes]
    counts = Counter(change.name for change in drawn)
    assert len(counts) == 14
    assert all(count == pytest.approx(len(drawn) / 14, rel=0.25) for count in counts.values())
    ways = {name: {change.values for change in drawn if change.name == name} for name in counts}
    assert ways["rotate"] == {(15.0,), (-15.0,)}
    assert ways["brightness"] == {(1 + 0.45,), (1 - 0.45,)}
    assert ways["posterize"] == {(2.0,)} and ways["solarize"] == {(0.5,)} and ways["identity"] == {(0.0,)}


def test_lambda_comes_from_a_beta_distribution_and_photos_are_mixed_with_any_other() -> None:
    mixes = [view.mix for view in views(Augment(mixup=0.4)) if view.mix is not None]
    drawn = [mix.drawn for mix in mixes]
    for value in (0.0, 0.1, 0.5, 0.9):
        assert sum(one <= value for one in drawn) / len(drawn) == pytest.approx(
            beta.cdf(value + 0.005, 0.4, 0.4), abs=0.03
        )
    assert all(round(one, 2) == one for one in drawn)
    # One photo in fifty draws itself.
    assert len(mixes) / 2000 == pytest.approx(0.98, abs=0.02)
    assert {mix.index for mix in mixes} == set(ORDER)
    shared = [view.mix for view in views(Augment(mixup=0.4, cutmix=1.0, mix_share=0.5))]
    assert sum(mix is not None for mix in shared) / 2000 == pytest.approx(0.49, abs=0.05)
    cut = [mix for mix in shared if mix is not None and mix.centre is not None]
    assert len(cut) / 980 == pytest.approx(0.5, abs=0.06)
    assert all(mix.centre is not None for mix in (view.mix for view in views(Augment(cutmix=1.0))) if mix is not None)


def test_the_other_photo_comes_from_the_epoch_as_often_as_training_takes_it() -> None:
    weights = [1.0] * 40 + [3.0] * 10
    order = [*range(5)] * 5 + [*range(40, 50)] * 2
    drawn = Views(Augment(mixup=1.0), weights, seed=0)
    mixes = [drawn.view(7, epoch=0, time=time, order=order).mix for time in range(4000)]
    others = Counter(mix.index for mix in mixes if mix is not None)
    assert set(others) == set(order)
    assert others[0] / 4000 == pytest.approx(5 / 45, abs=0.02) and others[45] / 4000 == pytest.approx(2 / 45, abs=0.02)
    assert {mix.weight for mix in mixes if mix is not None and mix.index >= 40} == {3.0}


def test_alone_a_photo_is_not_mixed() -> None:
    drawn = Views(Augment(mixup=1.0), [1.0], seed=0)
    assert drawn.view(0, epoch=0, time=0, order=[0]) == View()


@given(
    drawn=st.floats(0, 1),
    centre=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
def test_lambda_of_cutmix_is_what_the_box_leaves(
    drawn: float, centre: tuple[float, float], size: tuple[int, int]
) -> None:
    mix = Mix(index=0, weight=1.0, changes=(), drawn=drawn, centre=centre)
    left, top, right, bottom = mix.box(*size)
    assert 0 <= left <= right <= size[0] and 0 <= top <= bottom <= size[1]
    assert mix.share(*size) == 1 - (right - left) * (bottom - top) / (size[0] * size[1])


def test_a_box_in_the_middle_takes_what_lambda_leaves() -> None:
    mix = Mix(index=0, weight=1.0, changes=(), drawn=0.75, centre=(0.5, 0.5))
    assert mix.box(100, 60) == (25, 15, 75, 45) and mix.share(100, 60) == 0.75
    corner = Mix(index=0, weight=1.0, changes=(), drawn=0.75, centre=(0.0, 1.0))
    assert corner.box(100, 60) == (0, 45, 25, 60) and corner.share(100, 60) == 0.9375


@pytest.mark.parametrize("augment", [Augment(mixup=0.2), Augment(mixup=0.4, cutmix=1.0, mix_share=0.6), Augment()])
def test_as_many_answers_are_foreseen_as_are_drawn(augment: Augment) -> None:
    shares = [view.mix.share(400, 300) if view.mix else 1.0 for view in views(augment)]
    answers = 1 + sum(0 < share < 1 for share in shares) / len(shares)
    # One photo in fifty draws itself.
    assert answers == pytest.approx(mean_answers(augment), abs=0.04)
