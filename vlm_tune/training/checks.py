"""Proofs around training: the trained tokens are the answer, and every adapter gets a gradient."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from vlm_tune.errors import AdapterError, LabelAuditError
from vlm_tune.families import Family, family_of
from vlm_tune.records import Record
from vlm_tune.training.batches import IGNORED, Batches

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

__all__ = ["GradientLiveness", "TokenAudit", "audit_tokens"]


class TokenAudit(Record):
    """What is trained and what is not, decoded from the very batches that the trainer gets."""

    examples: NonNegativeInt
    """Examples decoded: one batch, and one of every label."""
    trained_text: dict[str, str]
    """Label to the text that is trained for it, special tokens spelled out."""
    trained_tokens: NonNegativeInt
    """Tokens that the loss sees."""
    total_tokens: NonNegativeInt
    """Tokens of those examples, padding left out."""
    image_tokens: NonNegativeInt
    """Those of them that stand for images; none is trained."""

    @property
    def trained_fraction(self) -> float:
        """Share of the tokens that the loss sees."""
        return self.trained_tokens / self.total_tokens


def audit_tokens(batches: Batches, config: PreTrainedConfig, *, batch_size: int) -> TokenAudit:
    """Decode one batch and one example of every label, and prove that just the answers are trained.

    Args:
        batches: The training batches.
        config: The model's configuration.
        batch_size: Examples in the batch that is decoded.

    Raises:
        LabelAuditError: The trained text is not the label and the end of turn; an image token would be
            trained; something comes behind the answer; or the image tokens do not match the image's patches.
    """
    first: dict[str, int] = {}
    for index, example in enumerate(batches.examples):
        first.setdefault(example.label, index)
    indices = sorted({*range(min(batch_size, len(batches))), *first.values()})
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        batch = batches.collate([{"index": index} for index in chosen])
        _match_images(batch, config)
        for row, index in enumerate(chosen):
            example = batches.examples[index]
            texts[example.label] = _audit_row(batches, batch, row, example.label, config.image_token_id)
            counts["trained"] += int((batch["labels"][row] != IGNORED).sum())
            counts["total"] += int(batch["attention_mask"][row].sum())
            counts["image"] += int((batch["input_ids"][row] == config.image_token_id).sum())
    return TokenAudit(
        examples=len(indices),
        trained_text=texts,
        trained_tokens=counts["trained"],
        total_tokens=counts["total"],
        image_tokens=counts["image"],
    )


class GradientLiveness:
    """Watches the gradients of the first optimizer steps: every `lora_B` asked for must get one.

    B starts at 0 and A does not, so B's gradient is there from the first step on, unless the layer is cut
    off: by reentrant checkpointing, by a model that does not use it, or by an image that never reaches it.

    Args:
        family: The architecture, to name the regions.
        steps: Optimizer steps within which each must have been non-zero once.
    """

    def __init__(self, family: Family, *, steps: int = 3) -> None:
        self._family = family
        self._left = steps
        self._alive: set[str] = set()

    def check(self, parameters: Iterator[tuple[str, torch.nn.Parameter]], *, last: bool = False) -> None:
        """Look at the gradients just before an optimizer step.

        Args:
            parameters: Names and parameters of the wrapped model.
            last: Whether there will be no further step.

        Raises:
            AdapterError: A gradient is not finite, or one has stayed zero; the message counts them by region.
        """
        if self._left <= 0:
            return
        self._left -= 1
        watched = {name: p for name, p in parameters if ".lora_B." in name and p.requires_grad}
        norms = _norms(watched)
        broken = [name for name, norm in norms.items() if norm != norm or norm == float("inf")]
        if broken:
            raise AdapterError(f"gradients are not finite: {self._by_region(broken, watched)}; lower the learning rate")
        self._alive |= {name for name, norm in norms.items() if norm > 0}
        dead = [name for name in watched if name not in self._alive]
        if dead and (last or self._left == 0):
            raise AdapterError(
                f"these adapters get no gradient and would stay untrained: {self._by_region(dead, watched)}; "
                f"first {_module_name(dead[0])}. Ask for other regions or kinds, or report it with the "
                "output of vlm_tune.show_versions()"
            )

    def _by_region(self, names: Sequence[str], watched: dict[str, torch.nn.Parameter]) -> str:
        def regions(parameters: Sequence[str]) -> Counter[str]:
            return Counter(_part(self._family, _module_name(name)) for name in parameters)

        total = regions(list(watched))
        return ", ".join(f"{region} {count} of {total[region]}" for region, count in regions(names).items())


def _audit_row(batches: Batches, batch: dict[str, torch.Tensor], row: int, label: str, image_id: int) -> str:
    ids, labels = batch["input_ids"][row], batch["labels"][row]
    trained = (labels != IGNORED).nonzero().flatten()
    length = int(batch["attention_mask"][row].sum())
    tokenizer = batches.processor.tokenizer
    text = str(tokenizer.decode(labels[trained], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    answer = batches.answer(label)
    ending = str(tokenizer.decode(answer[-1:], skip_special_tokens=False))
    if labels[trained].tolist() != answer or text != label + ending:
        raise LabelAuditError(f"for label {label!r} the text {text!r} would be trained, not {label + ending!r}")
    if trained.tolist() != list(range(length - len(answer), length)):
        raise LabelAuditError(
            f"for label {label!r} something comes behind the answer, or the answer is not in one piece"
        )
    if not (labels[trained] == ids[trained]).all() or (labels == image_id).any():
        raise LabelAuditError(f"for label {label!r} the trained tokens are not the tokens that the model reads")
    return text


def _match_images(batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
    expected = _expected_image_tokens(batch, config)
    found = int((batch["input_ids"] == config.image_token_id).sum())
    if expected is not None and found != expected:
        raise LabelAuditError(
            f"the prompts hold {found} image tokens but the images have {expected}: processor and model do "
            "not belong together, or the prompt was cut"
        )
    if found == 0:
        raise LabelAuditError("the prompts hold no image tokens: the model would be trained blind")


def _expected_image_tokens(batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> int | None:
    family = family_of(config).name
    if family == "qwen3_vl":
        merged = int(config.vision_config.spatial_merge_size) ** 2
        return int(batch["image_grid_thw"].prod(-1).sum()) // merged
    if family == "lfm2_vl":
        return int((batch["spatial_shapes"] // config.downsample_factor).prod(-1).sum())
    return None


def _norms(parameters: dict[str, torch.nn.Parameter]) -> dict[str, float]:
    # One transfer for all of them: hundreds of small ones would stall a GPU.
    import torch

    with_gradient = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if not with_gradient:
        return {}
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(with_gradient.values()))]).tolist()
    return dict(zip(with_gradient, norms, strict=True))


def _part(family: Family, module: str) -> str:
    matching = (part for part, layers in family.layers.items() if re.fullmatch(layers.pattern, module))
    return " ".join(next(matching, ("other", "layers")))


def _module_name(parameter: str) -> str:
    return parameter.removeprefix("base_model.model.").partition(".lora_")[0]
