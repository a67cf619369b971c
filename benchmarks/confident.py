"""Lets a model with random weights be sure of its answers, as a trained one is; nothing else about its work changes.

The embeddings outweigh what the layers add, and the head, now of its own, answers each of an answer's tokens with the
next one: behind the prompt the first tokens of the labels, each less probable by one factor than the one before it.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

_OUTWEIGHS = 2000.0
"""How much larger embeddings become."""
_SURE = 30.0
"""Logit of what comes next; that of everything else is about 1."""


def let_few_be_likely(model: PreTrainedModel, last: int, answers: Sequence[Sequence[int]], number: int) -> None:
    """Change embeddings and head so that `number` of the answers have all but a ten-millionth of the probability.

    Args:
        model: The model.
        last: The prompt's last token.
        answers: The tokens of each answer, the end of the turn included.
        number: How many beginnings are likely.
    """
    fall = math.log(10_000_000) / number
    follows: dict[tuple[int, int], float] = {}
    for rank, token in enumerate(dict.fromkeys(answer[0] for answer in answers)):
        follows[last, token] = max(_SURE - fall * rank, 0.0)
    for answer in answers:
        for before, after in itertools.pairwise(answer):
            follows.setdefault((before, after), _SURE)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        head = torch.nn.Parameter(0.02 * torch.randn_like(embedding), requires_grad=False)
        embedding.mul_(_OUTWEIGHS)
        of_after: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for (before, after), logit in follows.items():
            of_after[after].append((before, logit))
        for after, pairs in of_after.items():
            known = embedding[[before for before, _ in pairs]].float()
            # Behind the last norm a state is as long as the square root of its width: what is asked for is met for
            # every token that it follows, however their embeddings lie to one another.
            states = known / known.norm(dim=1, keepdim=True) * math.sqrt(known.shape[1])
            wanted = torch.tensor([logit for _, logit in pairs], device=states.device)
            head[after] = torch.linalg.lstsq(states.cpu(), wanted.cpu()[:, None]).solution[:, 0].to(head)
    model.lm_head.weight = head
