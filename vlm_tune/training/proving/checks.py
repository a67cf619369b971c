"""Proofs around training: the trained tokens are the answer, and every adapter gets a gradient."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vlm_tune.errors import AdapterError, LabelAuditError
from vlm_tune.families import Family
from vlm_tune.training.proving.audit import TokenAudit, TokenKind, TokenSpan
from vlm_tune.training.running.batches import IGNORED, Batches

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

__all__ = ["GradientLiveness", "audit_tokens"]


def audit_tokens(batches: Batches, config: PreTrainedConfig, *, batch_size: int) -> TokenAudit:
    """Decode one batch and one example of every label, and prove that just the answers are trained.

    Args:
        batches: The training batches.
        config: The model's configuration.
        batch_size: Examples in the batch that is decoded.

    Raises:
        LabelAuditError: Nothing would be trained, or an image token, or a text that is not the label and the end
            of turn; the answer is cut, or something comes behind it; or the image tokens do not match the image's
            patches.
    """
    first: dict[str, int] = {}
    for index, example in enumerate(batches.examples):
        first.setdefault(example.label, index)
    indices = sorted({*range(min(batch_size, len(batches))), *first.values()})
    image_id = _image_token(config)
    counts: Counter[str] = Counter()
    texts: dict[str, str] = {}
    spans: tuple[TokenSpan, ...] = ()
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        batch = batches.collate(chosen)
        _match_images(batch, config)
        for row, index in enumerate(chosen):
            label = batches.examples[index].label
            length = int(batch["attention_mask"][row].sum())
            ids, labels = batch["input_ids"][row], batch["labels"][row]
            texts[label] = _audit_row(batches, ids, labels, label, length=length, image_id=image_id)
            spans = spans or _spans(batches.processor.tokenizer, ids[:length], labels[:length], image_id)
            counts["trained"] += int((labels != IGNORED).sum())
            counts["total"] += length
            counts["image"] += int((ids == image_id).sum())
    return TokenAudit(
        examples=len(indices),
        trained_text=texts,
        trained_tokens=counts["trained"],
        total_tokens=counts["total"],
        image_tokens=counts["image"],
        example_id=batches.examples[indices[0]].id,
        spans=spans,
    )


class GradientLiveness:
    """Watches the gradients of the first optimizer steps: every `lora_B` asked for must get one.

    B starts at 0 and A does not, so B's gradient is there from the first step on, unless the layer is cut
    off: by reentrant checkpointing, by a model that does not use it, or by an image that never reaches it.
    A module that is trained in full must get one for any of its parameters: a bias may rightly have none.

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
        watched = {name: p for name, p in parameters if _is_watched(name) and p.requires_grad}
        layers = list(dict.fromkeys(_module_name(name) for name in watched))
        norms = _norms(watched)
        broken = dict.fromkeys(_module_name(name) for name, norm in norms.items() if not norm < float("inf"))
        if broken:
            raise AdapterError(f"gradients are not finite: {self._by_region(broken, layers)}; lower the learning rate")
        self._alive |= {_module_name(name) for name, norm in norms.items() if norm > 0}
        dead = [name for name in layers if name not in self._alive]
        if dead and (last or self._left == 0):
            raise AdapterError(
                f"these adapters get no gradient and would stay untrained: {self._by_region(dead, layers)}; "
                f"first {dead[0]}. Ask for other regions or kinds, or report it with the "
                "output of vlm_tune.show_versions()"
            )

    def _by_region(self, some: Collection[str], layers: Collection[str]) -> str:
        def regions(names: Collection[str]) -> Counter[str]:
            return Counter(" ".join(self._family.part_of(name) or ("other", "layers")) for name in names)

        total = regions(layers)
        return ", ".join(f"{region} {count} of {total[region]}" for region, count in regions(some).items())


def _audit_row(
    batches: Batches, ids: torch.Tensor, labels: torch.Tensor, label: str, *, length: int, image_id: int
) -> str:
    tokenizer = batches.processor.tokenizer
    places = (labels != IGNORED).nonzero().flatten()
    trained, answer = labels[places].tolist(), batches.answer(label)
    text = _decoded(tokenizer, trained)
    wanted = label + _decoded(tokenizer, answer[-1:])
    if not trained:
        raise LabelAuditError(f"for label {label!r} nothing would be trained: all its tokens are masked")
    if image_id in trained:
        raise LabelAuditError(f"for label {label!r} an image token would be trained")
    if len(trained) < len(answer) and trained in (answer[: len(trained)], answer[-len(trained) :]):
        raise LabelAuditError(f"for label {label!r} the answer is cut: {text!r} would be trained, not {wanted!r}")
    if trained != answer or text != wanted:
        raise LabelAuditError(f"for label {label!r} the text {text!r} would be trained, not {wanted!r}")
    if places.tolist() != list(range(length - len(answer), length)):
        raise LabelAuditError(
            f"for label {label!r} something comes behind the answer, or the answer is not in one piece"
        )
    if ids[places].tolist() != trained:
        raise LabelAuditError(f"for label {label!r} the trained tokens are not the tokens that the model reads")
    return text


def _spans(tokenizer: Any, ids: torch.Tensor, labels: torch.Tensor, image_id: int) -> tuple[TokenSpan, ...]:
    def kind(place: int) -> TokenKind:
        if labels[place] != IGNORED:
            return "trained"
        return "image" if ids[place] == image_id else "masked"

    spans = []
    for found, group in itertools.groupby(range(len(ids)), key=kind):
        places = list(group)
        text = f"<image x {len(places)}>" if found == "image" else _decoded(tokenizer, ids[places].tolist())
        spans.append(TokenSpan(kind=found, text=text, num_tokens=len(places)))
    return tuple(spans)


def _decoded(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _match_images(batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
    expected = _expected_image_tokens(batch, config)
    found = int((batch["input_ids"] == _image_token(config)).sum())
    if expected is not None and found != expected:
        raise LabelAuditError(
            f"the prompts hold {found} image tokens but the images have {expected}: processor and model do "
            "not belong together, or the prompt was cut"
        )
    if found == 0:
        raise LabelAuditError("the prompts hold no image tokens: the model would be trained blind")


def _expected_image_tokens(batch: dict[str, torch.Tensor], config: PreTrainedConfig) -> int | None:
    if config.model_type in ("qwen3_vl", "qwen2_5_vl"):
        merged = int(config.vision_config.spatial_merge_size) ** 2
        return int(batch["image_grid_thw"].prod(-1).sum()) // merged
    if config.model_type == "lfm2_vl":
        return int((batch["spatial_shapes"] // config.downsample_factor).prod(-1).sum())
    return None


def _image_token(config: PreTrainedConfig) -> int:
    # Older configurations have another name for it.
    names = ("image_token_id", "image_token_index")
    found = next((value for name in names if (value := getattr(config, name, None)) is not None), None)
    if found is None:
        raise LabelAuditError(f"the configuration of {config.model_type} does not say which token stands for images")
    return int(found)


def _norms(parameters: dict[str, torch.nn.Parameter]) -> dict[str, float]:
    # One transfer for all of them: hundreds of small ones would stall a GPU.
    import torch

    with_gradient = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if not with_gradient:
        return {}
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(with_gradient.values()))]).tolist()
    return dict(zip(with_gradient, norms, strict=True))


def _is_watched(parameter: str) -> bool:
    return ".lora_B." in parameter or ".modules_to_save." in parameter


def _module_name(parameter: str) -> str:
    name = parameter.removeprefix("base_model.model.").partition(".lora_")[0]
    return name.partition(".modules_to_save.")[0]
