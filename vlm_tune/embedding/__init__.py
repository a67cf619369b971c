"""Image embeddings: open_clip where its weights are at hand, one that needs no weights at all, and any function."""

from vlm_tune.embedding.adapting import AdaptedEmbedder, adapt
from vlm_tune.embedding.clip import OpenClip
from vlm_tune.embedding.embedder import Embedder, default_embedder
from vlm_tune.embedding.features import LANDMARKS, MIRROR, landmarks, sift
from vlm_tune.embedding.function import EmbeddingFunction, FunctionEmbedder, as_embedder, checked
from vlm_tune.embedding.pixels import PixelEmbedder
from vlm_tune.embedding.workers import workers

__all__ = [
    "LANDMARKS",
    "MIRROR",
    "AdaptedEmbedder",
    "Embedder",
    "EmbeddingFunction",
    "FunctionEmbedder",
    "OpenClip",
    "PixelEmbedder",
    "adapt",
    "as_embedder",
    "checked",
    "default_embedder",
    "landmarks",
    "sift",
    "workers",
]
