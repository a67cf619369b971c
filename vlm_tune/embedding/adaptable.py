"""What the library's own embedders can do: be fitted to one domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from vlm_tune.records import Example

if TYPE_CHECKING:
    from vlm_tune.embedding.adapting import AdaptedEmbedder
    from vlm_tune.embedding.embedder import Embedder

__all__ = ["Adaptable"]


class Adaptable:
    """An embedder that can be fitted to one domain."""

    def adapt(self, train: Sequence[Example], *, num_views: int = 2, seed: int = 0) -> AdaptedEmbedder:
        """Return this embedder fitted to training photos; see `vlm_tune.embedding.adapt`."""
        from vlm_tune.embedding.adapting import adapt

        return adapt(cast("Embedder", self), train, num_views=num_views, seed=seed)
