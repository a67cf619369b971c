"""The open_clip wrapper, on a tiny model through the real create path."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.clip import tiny_clip
from tests.leakage.planting import jpeg_bytes, scene
from vlm_tune.embedding import OpenClip
from vlm_tune.errors import ModelError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def weights(tiny: str, tmp_path: Path) -> Path:
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model(tiny).state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


def test_it_embeds_with_given_weights(tiny: str, weights: Path) -> None:
    images = [jpeg_bytes(scene(i)) for i in range(5)]
    first = OpenClip(tiny, weights, batch_size=2).embed(images)
    assert first.shape == (5, 24)
    assert first.dtype == np.float32
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
    assert np.allclose(first, OpenClip(tiny, weights, batch_size=5).embed(images), atol=1e-5)


def test_the_name_says_model_and_weights(tiny: str, weights: Path) -> None:
    assert OpenClip(tiny, weights).name == "open_clip vlm-tune-tiny tiny.pt"
    assert OpenClip(tiny, None).name == "open_clip vlm-tune-tiny random weights"
    assert OpenClip().name == "open_clip ViT-B-32 laion2b_s34b_b79k"


def test_an_unknown_model_or_tag_is_an_error_of_ours(tiny: str) -> None:
    with pytest.raises(ModelError, match="ViT-Z-99"):
        OpenClip("ViT-Z-99", None).embed([jpeg_bytes(scene(0))])
    with pytest.raises(ModelError, match="no-such-tag"):
        OpenClip(tiny, "no-such-tag").embed([jpeg_bytes(scene(0))])


def test_weights_that_do_not_fit_are_an_error_of_ours(tiny: str, weights: Path, tmp_path: Path) -> None:
    import torch

    torch.save({**torch.load(weights, weights_only=True), "visual.proj": torch.zeros(8, 8)}, tmp_path / "other.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"tiny other\.pt.*another architecture"):
        OpenClip(tiny, tmp_path / "other.pt").embed([jpeg_bytes(scene(0))])
    for name in ("junk.pt", "empty.safetensors"):
        with pytest.raises(ModelError, match=f"cannot load open_clip {tiny} {name}"):
            OpenClip(tiny, tmp_path / name).embed([jpeg_bytes(scene(0))])


def test_the_fingerprint_is_the_content_of_the_weights(tiny: str, weights: Path, tmp_path: Path) -> None:
    before = OpenClip(tiny, weights).fingerprint
    (tmp_path / "moved.pt").write_bytes(weights.read_bytes())
    assert OpenClip(tiny, tmp_path / "moved.pt").fingerprint == before
    weights.write_bytes(b"other")
    assert OpenClip(tiny, weights).fingerprint not in (before, None)
    assert OpenClip(tiny, None).fingerprint is None
    assert OpenClip().fingerprint == "open_clip ViT-B-32 laion2b_s34b_b79k"


def test_nothing_is_loaded_before_it_is_needed() -> None:
    assert "_loaded" not in vars(OpenClip())
