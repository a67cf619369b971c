import pytest

from vlm_tune.errors import TrainingError
from vlm_tune.training import TrainConfig
from vlm_tune.training.augmenting.settings import Augment


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"mixup": -0.1}, "mixup"),
        ({"mixup": float("nan")}, "mixup"),
        ({"cutmix": float("inf")}, "cutmix"),
        ({"mix_share": 1.5}, "mix_share"),
        ({"crop": (0.0, 1.0)}, "crop"),
        ({"crop": (0.9, 0.5)}, "crop"),
        ({"crop": (0.5, 1.2)}, "crop"),
        ({"crop": (float("nan"), 1.0)}, "crop"),
        ({"crop": 0.8}, "crop"),
        ({"colour": 1.0}, "colour"),
        ({"blur": 3.0}, "blur"),
        ({"rand_augment": -1}, "rand_augment"),
        ({"magnitude": 31}, "magnitude"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(TrainingError, match=rf"Augment\.{field}"):
        Augment(**wrong)
    with pytest.raises(TrainingError, match=rf"Augment\.{field}"):
        TrainConfig(augment=wrong)


def test_a_wrong_name_lists_the_nearest() -> None:
    with pytest.raises(TrainingError, match="did you mean colour"):
        Augment(color=0.2)


def test_nothing_is_on_that_was_not_asked_for() -> None:
    assert Augment().is_off and not Augment().mixes
    # What an operation's strength or a share is, says nothing of whether it is done.
    assert Augment(magnitude=20, mix_share=0.5).is_off
    assert Augment(mixup=0.2, mix_share=0.0).is_off
    for one in ({"crop": (0.5, 1.0)}, {"flip": True}, {"colour": 0.1}, {"blur": 0.01}, {"rand_augment": 1}):
        assert not Augment(**one).is_off
    assert TrainConfig(augment=Augment(flip=True)).changes_photos
    assert not TrainConfig(augment=Augment()).changes_photos and not TrainConfig().changes_photos


def test_a_configuration_with_other_changes_is_another_one() -> None:
    configs = [TrainConfig(augment=one) for one in (None, Augment(mixup=0.2), Augment(mixup=0.4), Augment(flip=True))]
    assert len({config.fingerprint for config in configs}) == 4
    again = TrainConfig.model_validate_json(configs[1].model_dump_json())
    assert again == configs[1] and again.fingerprint == configs[1].fingerprint


def test_what_is_on_is_told_in_words() -> None:
    assert Augment().words == "nothing" == Augment(mixup=0.2, mix_share=0.0, magnitude=3).words
    everything = Augment(crop=(0.5, 1.0), flip=True, rand_augment=2, colour=0.3, blur=0.01, mixup=0.2, cutmix=1.0)
    assert everything.words == "crop 0.5 to 1, flip, RandAugment 2 x 9, colour 0.3, blur 0.01, MixUp 0.2, CutMix 1"
