"""The default embedder never reaches for the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlm_tune.embedding import OpenClip, PixelEmbedder, default_embedder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_weights_it_is_the_weight_free_one(cache: Path) -> None:
    assert isinstance(default_embedder(), PixelEmbedder)
    assert list(cache.iterdir()) == []


def test_weights_in_the_cache_are_used_by_path(cache: Path) -> None:
    repository = cache / "models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "open_clip_model.safetensors").write_bytes(b"weights")
    embedder = default_embedder()
    assert isinstance(embedder, OpenClip)
    assert embedder.model == "ViT-B-32"
    assert embedder.weights == str(snapshot / "open_clip_model.safetensors")
