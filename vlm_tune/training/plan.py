"""What would be adapted, and what it would take: read from the model's skeleton, without its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt, PositiveInt

from vlm_tune import _console
from vlm_tune.errors import ModelError
from vlm_tune.families import Coverage, Family, Kind, Part, Region, family_of, linear_names
from vlm_tune.records import Example, Record
from vlm_tune.task import Task
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.estimate import Estimates, Sizes, Stack, estimate, pick_device

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.figure import Figure
    from rich.table import Table
    from transformers import PreTrainedModel, ProcessorMixin

    from vlm_tune.vlm import VLM

__all__ = ["AdapterPlan", "PlanRow", "make_plan"]

_REGIONS: tuple[Region, ...] = ("vision", "projector", "language")
_KINDS: tuple[Kind, ...] = ("attention", "mlp", "conv")

_SAMPLE = 8
"""Training photos whose tokens are counted; the rest are taken to be like them."""


class PlanRow(Record):
    """One part of the model."""

    region: Region
    """Vision tower, projector or language model."""
    kind: Kind
    """What the layers do in their blocks."""
    hit: NonNegativeInt
    """Linear layers that get an adapter."""
    total: PositiveInt
    """Linear layers of this part."""
    parameters: NonNegativeInt
    """Parameters of those adapters: r x (inputs + outputs) each."""
    share: float
    """Those over the parameters of the base model."""


class AdapterPlan(Record):
    """What a training run would adapt and what it would take, before anything is loaded or paid."""

    model: str
    """The base model."""
    family: str
    """Its architecture."""
    rows: tuple[PlanRow, ...]
    """Every part of the model, adapted or not."""
    target_modules: str
    """Pattern of the full names of the adapted layers, as PEFT takes it."""
    r: PositiveInt
    """Rank."""
    scale: float
    """`lora_alpha / r`."""
    trained_parameters: PositiveInt
    """Parameters of all adapters."""
    total_parameters: PositiveInt
    """Parameters of the base model."""
    num_examples: PositiveInt
    """Training examples."""
    tokens_per_example: float
    """Tokens of one example, image and answer included (mean of a few photos)."""
    estimates: Estimates
    """Memory, time and dollars."""

    @property
    def trained_share(self) -> float:
        """Adapter parameters over base parameters."""
        return self.trained_parameters / self.total_parameters

    def show(self) -> None:
        """Print the plan."""
        from rich.console import Group

        parts = Group(self._parts(), self._costs())
        _console.show(parts, html=_console.to_html(parts))

    def frame(self) -> pd.DataFrame:
        """Return one row a part of the model."""
        import pandas as pd

        return pd.DataFrame([row.model_dump() for row in self.rows])

    def plot(self) -> Figure:
        """Draw how many layers of each part are adapted."""
        from vlm_tune import plots

        return plots.modules_hit([(f"{row.region} {row.kind}", row.hit, row.total) for row in self.rows])

    def _parts(self) -> Table:
        from rich.table import Table

        title = f"{self.model}: LoRA r {self.r}, scale {self.scale:g}"
        table = Table("region", "kind", "layers adapted", "parameters", "of the model", title=title)
        for row in self.rows:
            numbers = (f"{row.parameters:,}", f"{100 * row.share:.3f} %") if row.hit else ("", "")
            table.add_row(row.region, row.kind, f"{row.hit} of {row.total}", *numbers, style="" if row.hit else "dim")
        whole = f"{100 * self.trained_share:.3f} %"
        hit, total = sum(row.hit for row in self.rows), sum(row.total for row in self.rows)
        table.add_section()
        table.add_row("all", "", f"{hit} of {total}", f"{self.trained_parameters:,}", whole)
        return table

    def _costs(self) -> Table:
        from rich.table import Table

        guess = self.estimates
        table = Table("estimate", guess.device, title="Arithmetic, nothing measured")
        room = "fits" if guess.fits else "does NOT fit: smaller batch_size, or gradient_checkpointing=True"
        table.add_row("memory", f"{guess.memory_gb:.1f} GB of {guess.device_gb:.0f} GB: {room}")
        table.add_row(
            "",
            f"weights {guess.weights_gb:.1f}, adapters and optimizer {guess.adapter_gb:.1f}, "
            f"activations {guess.activations_gb:.1f}",
        )
        table.add_row("steps", f"{guess.steps} ({self.num_examples} examples of {self.tokens_per_example:.0f} tokens)")
        table.add_row("time", _duration(guess.seconds))
        if guess.cost is not None:
            table.add_row("cost", f"{guess.cost}: {guess.cost.basis}")
        return table


def make_plan(
    base: VLM, config: TrainConfig, train: Sequence[Example], task: Task, *, device: str | None = None
) -> AdapterPlan:
    """Plan a training run from the model's configuration and a few photos.

    Args:
        base: The base model; its weights are not read.
        config: The training configuration.
        train: The training examples.
        task: The question.
        device: Name of a card of `estimate.DEVICES`; None takes the one at hand. Where there is none, a large
            model is planned for the first of `DEVICES`, and the plan says so.

    Raises:
        ModelError: The architecture is not known, or the model's files cannot be read.
        AdapterError: A region or kind is hit nowhere or incompletely; the message lists the names that exist.
    """
    family = family_of(base.config)
    target_modules = family.target_modules(config.regions, config.kinds)
    skeleton = base.skeleton()
    coverage = family.require(linear_names(skeleton), config.regions, config.kinds)
    total = sum(parameter.numel() for parameter in skeleton.parameters())
    rows = _rows(skeleton, family, coverage, config, total)
    trained = sum(row.parameters for row in rows)
    chosen, reason = pick_device(base.device, total, name=device)
    tokens, patches = _lengths(_processor(base), train, task)
    sizes = Sizes(
        family=family.name,
        stacks={region: _stack(skeleton, family, region) for region in _REGIONS},
        parameters=total,
        trained=trained,
        regions=config.regions,
        tokens=tokens,
        patches=patches,
        examples=len(train),
        bytes_per_weight=4 if base.dtype == "float32" or (base.dtype == "auto" and not chosen.rented) else 2,
    )
    return AdapterPlan(
        model=base.name,
        family=family.name,
        rows=rows,
        target_modules=target_modules,
        r=config.r,
        scale=config.scale,
        trained_parameters=trained,
        total_parameters=total,
        num_examples=len(train),
        tokens_per_example=tokens,
        estimates=estimate(sizes, config, chosen, reason=reason),
    )


def _rows(
    skeleton: PreTrainedModel,
    family: Family,
    coverage: Mapping[Part, Coverage],
    config: TrainConfig,
    total: int,
) -> tuple[PlanRow, ...]:
    every = family.modules(linear_names(skeleton), _REGIONS, _kinds(family))
    rows = []
    for (region, kind), part in every.items():
        hit = coverage[region, kind].hit if (region, kind) in coverage else ()
        modules = [skeleton.get_submodule(name) for name in hit]
        parameters = sum(config.r * (module.in_features + module.out_features) for module in modules)
        rows.append(
            PlanRow(
                region=region,
                kind=kind,
                hit=len(hit),
                total=len(part.total),
                parameters=parameters,
                share=parameters / total,
            )
        )
    return tuple(rows)


def _kinds(family: Family) -> tuple[Kind, ...]:
    return tuple(kind for kind in _KINDS if kind in {part[1] for part in family.layers})


def _stack(skeleton: PreTrainedModel, family: Family, region: Region) -> Stack:
    kinds = tuple(kind for there, kind in family.layers if there == region)
    names = [name for part in family.modules(linear_names(skeleton), [region], kinds).values() for name in part.total]
    modules = [skeleton.get_submodule(name) for name in names]
    text, vision = skeleton.config.get_text_config(), skeleton.config.vision_config
    heads = {
        "language": text.num_attention_heads
        * (getattr(text, "head_dim", 0) or text.hidden_size // text.num_attention_heads),
        "vision": vision.hidden_size,
        "projector": 0,
    }[region]
    # Only the layers that mix tokens have an output projection in their attention.
    attention = {name.rpartition(".")[0] for name in names if "attn" in name}
    return Stack(
        weights=sum(module.weight.numel() for module in modules),
        outputs=sum(module.out_features for module in modules),
        width={"language": text.hidden_size, "vision": vision.hidden_size, "projector": 0}[region],
        depth={"language": text.num_hidden_layers, "vision": _depth(vision), "projector": 1}[region],
        mixing=heads * len(attention),
    )


def _depth(vision: object) -> int:
    return int(getattr(vision, "depth", 0) or getattr(vision, "num_hidden_layers", 0))


def _lengths(processor: ProcessorMixin, train: Sequence[Example], task: Task) -> tuple[float, float]:
    """Return the mean number of tokens and of image patches of an example."""
    import torch

    from vlm_tune.training.batches import Batches

    step = max(1, len(train) // _SAMPLE)
    batches = Batches(train[::step][:_SAMPLE], processor=processor, task=task, dtype=torch.float32)
    encoded = [batches[index] for index in range(len(batches))]
    tokens = sum(len(one.tokens["input_ids"]) for one in encoded) / len(encoded)
    patches = sum(_patches(one.pixels) for one in encoded) / len(encoded)
    return tokens, patches


def _patches(pixels: Mapping[str, torch.Tensor]) -> int:
    values = pixels["pixel_values"]
    # (patches, values) or (tiles, patches, values).
    return values.shape[0] if values.ndim == 2 else values.shape[0] * values.shape[1]


def _processor(base: VLM) -> ProcessorMixin:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(base.folder or base.model, revision=base.revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the processor of {base.model}: {error}") from error


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
