"""Image embeddings: open_clip where its weights are at hand, and one that needs no weights at all."""

from vlm_tune.embedding.clip import OpenClip
from vlm_tune.embedding.embedder import Embedder, default_embedder
from vlm_tune.embedding.features import MIRROR, sift
from vlm_tune.embedding.pixels import PixelEmbedder
from vlm_tune.embedding.workers import workers

__all__ = ["MIRROR", "Embedder", "OpenClip", "PixelEmbedder", "default_embedder", "sift", "workers"]
