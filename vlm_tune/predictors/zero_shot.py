"""Zero-shot classification by an image-text model: the class whose text lies nearest to the photo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from vlm_tune.embedding import OpenClip, default_embedder
from vlm_tune.errors import PredictorError, TaskError
from vlm_tune.predictors.embedded import Array, EmbeddedBaseline, digest, identity
from vlm_tune.task import Task

__all__ = ["ZeroShot"]


class ZeroShot(EmbeddedBaseline):
    """The predictor behind `Baseline.clip`."""

    def __init__(self, embedder: OpenClip | None, templates: Sequence[str]) -> None:
        chosen = default_embedder() if embedder is None else embedder
        if not isinstance(chosen, OpenClip):
            raise PredictorError(
                f"zero-shot answers need a model that reads text, and {chosen.name!r} does not; pass OpenClip(), "
                "whose weights are fetched on first use, or OpenClip(model, path_of_the_weights)"
            )
        self.embedder: OpenClip = chosen
        self.templates = tuple(templates)
        for template in self.templates or ("",):
            _filled(template, "dent", "")
        self.name = f"zero-shot {chosen.name}"

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Changes with the model, its weights and the templates."""
        return digest("zero-shot", identity(self.embedder), *self.templates)

    def _classifier(self, task: Task) -> Callable[[Array], Array]:
        if task.multi_label:
            raise TaskError(
                f"{self.name}: several classes may apply, and zero-shot similarities do not say from where on one "
                "does; ask Baseline.linear_probe instead"
            )
        texts, scale = self._texts(task)

        def classify(rows: Array) -> Array:
            logits = scale * rows @ texts.T
            powers = np.exp(logits - logits.max(axis=1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=1, keepdims=True))

        return classify

    def _texts(self, task: Task) -> tuple[Array, float]:
        """Return a text vector of norm 1 for each class, (C, D), and the model's logit scale."""
        import open_clip
        import torch

        # The model that embeds the photos is loaded already: a second copy of it would only take memory.
        model: Any = self.embedder._loaded[0]
        tokenizer = open_clip.get_tokenizer(self.embedder.model)
        rows = []
        with torch.inference_mode():
            for label in task.classes:
                words = [_filled(text, label, task.descriptions.get(label, "")) for text in self.templates]
                tokens = tokenizer(words).to(next(model.parameters()).device)
                mean = model.encode_text(tokens, normalize=True).float().mean(dim=0)
                rows.append((mean / mean.norm()).cpu().numpy())
            return np.stack(rows).astype(np.float64), float(model.logit_scale.exp())


def _filled(template: str, label: str, description: str) -> str:
    try:
        filled = template.format(label=label, description=description)
    except (KeyError, IndexError, ValueError) as error:
        raise PredictorError(f"template {template!r}: only {{label}} and {{description}} can be filled in") from error
    if "{label" not in template:
        raise PredictorError(f"template {template!r} does not name the class; write {{label}} where it belongs")
    return filled.strip()
