"""What training minimises: the cross-entropy of the answers' tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Answers", "answer_loss"]


@dataclass(frozen=True)
class Answers:
    """What the model says at the answers of some examples.

    Attributes:
        logits: Of shape (tokens, vocabulary), for the answers' tokens only.
        targets: The tokens that should come, of shape (tokens,).
        weights: How much each counts, of shape (tokens,).
    """

    logits: Tensor
    targets: Tensor
    weights: Tensor


def answer_loss(answers: Answers, *, num_tokens: float, label_smoothing: float = 0.0) -> Tensor:
    """Return the weighted sum of the tokens' cross-entropies over a number of tokens, in nats.

    Args:
        answers: Some or all of the examples of one optimizer step.
        num_tokens: Trained tokens of the whole step, so that the parts of a step add up to its mean; those of a mixed
            photo's two answers count by their shares.
        label_smoothing: Share of each target that is spread over the vocabulary (Szegedy et al. 2016,
            arXiv 1512.00567).
    """
    from torch.nn import functional

    losses = functional.cross_entropy(
        answers.logits.float(), answers.targets, reduction="none", label_smoothing=label_smoothing
    )
    return (losses * answers.weights).sum() / num_tokens
