import pytest

from tests.families.architectures import PUBLISHED, published
from tests.training.planning.dimensions import cifar, damage
from vlm_tune.families import family_in
from vlm_tune.training import TrainConfig
from vlm_tune.training.planning.blocks import Block, blocks_of


def test_layers_are_read_from_the_module_tree() -> None:
    sizes = damage(TrainConfig())
    assert (len(sizes.vision), len(sizes.projector), len(sizes.language)) == (27, 4, 36)
    assert sizes.language[0] == Block(
        weights=4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 12288,
        width=4096,
        queries=4096,
        keys=1024,
        heads=32,
        normed=True,
        hidden=12288,
        gated=True,
        adapted=4,
        inputs=4 * 4096,
        outputs=4096 + 2 * 1024 + 4096,
        shared=4096,
    )
    vision = sizes.vision[0]
    assert vision.stacked
    assert (vision.queries, vision.keys, vision.hidden, vision.adapted) == (1152, 1152, 4304, 2)
    # Three layers are told about the photo besides the first.
    assert sizes.features == 4 * 4096
    assert sizes.parameters == pytest.approx(8.767e9, rel=1e-3)


def test_convolutions_and_attention_alternate() -> None:
    sizes = cifar(TrainConfig(regions=("language",), kinds=("attention", "mlp", "conv")))
    assert [block.conv for block in sizes.language[:4]] == [True, True, False, True]
    conv, attention = sizes.language[0], sizes.language[2]
    # Both inputs of the convolution's layers, that of the mlp's first two and that of its last.
    assert conv.shared == 2048 + 2048 + 2048 + 10752
    assert (conv.adapted, attention.adapted) == (5, 7)
    assert conv.queries == 0
    assert attention.keys == 512
    assert sizes.features == 2048


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_registered_architecture_has_towers_of_like_layers(name: str) -> None:
    model = published(name)
    family = family_in(model)
    for region in family.regions:
        blocks = blocks_of(model, family, region, TrainConfig(regions=("language",)))
        assert blocks
        assert all(block.weights > 0 and block.width > 0 for block in blocks)
        assert any(block.adapted for block in blocks) == (region == "language")
    language = blocks_of(model, family, "language", TrainConfig(regions=("language",)))
    text = model.config.get_text_config()
    assert len(language) == text.num_hidden_layers
    assert {block.width for block in language} == {text.hidden_size}
    assert all(block.gated and block.hidden > block.width for block in language)
