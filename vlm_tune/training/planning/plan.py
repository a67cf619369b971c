"""What would be adapted, and what it would take: read from the model's skeleton, without its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from vlm_tune.errors import ModelError
from vlm_tune.families import family_in
from vlm_tune.records import Example, Record
from vlm_tune.task import Task
from vlm_tune.training.config import TrainConfig
from vlm_tune.training.planning.estimate import Estimates, estimate, pick_device
from vlm_tune.training.planning.gpus import GpuTable, duration, gpu_table
from vlm_tune.training.planning.parts import FullRow, PlanRow, full_rows, left_out, plan_rows, spelled_scale
from vlm_tune.training.planning.sizes import Sizes, lengths_of, sizes_of
from vlm_tune.training.running.batches import Batches

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from rich.console import RenderableType
    from rich.table import Table
    from transformers import PreTrainedModel, ProcessorMixin

    from vlm_tune.vlm import VLM

__all__ = ["AdapterPlan", "FullRow", "PlanRow", "make_plan", "read_processor"]


class AdapterPlan(Record):
    """What a training run would adapt and what it would take, before anything is loaded or paid."""

    model: str
    """The base model."""
    family: str
    """Its architecture."""
    registered: bool = True
    """Whether the architecture's layers are known; otherwise they were found by looking at the model."""
    rows: tuple[PlanRow, ...]
    """Every part of the model, adapted or not."""
    in_full: tuple[FullRow, ...] = ()
    """Modules trained in full."""
    left_out: tuple[str, ...] = ()
    """Linear layers that never get an adapter; layer numbers are left out where it is all of them."""
    target_modules: str
    """Pattern of the full names of the adapted layers, as PEFT takes it."""
    r: PositiveInt
    """Rank."""
    scale: float
    """`lora_alpha / r`, or `lora_alpha / sqrt(r)` with rsLoRA."""
    method: str
    """`LoRA` or `DoRA`, and how the scale comes about."""
    trained_parameters: PositiveInt
    """Parameters of all adapters and of the modules trained in full."""
    total_parameters: PositiveInt
    """Parameters of the base model."""
    num_examples: PositiveInt
    """Training examples."""
    tokens_per_example: float
    """Tokens of one example, image and answer included (mean of a few photos)."""
    estimates: Estimates
    """Memory, time and dollars."""
    gpus: GpuTable
    """The same for every GPU with a price."""

    @property
    def trained_share(self) -> float:
        """Trained parameters over base parameters."""
        return self.trained_parameters / self.total_parameters

    def _rich(self) -> RenderableType:
        """Draw the plan."""
        from rich.console import Group

        return Group(self._parts(), self._costs())

    def frame(self) -> pd.DataFrame:
        """Return one row a part of the model, and one a module trained in full."""
        import pandas as pd

        full = [
            {"region": row.name, "kind": "in full", "hit": 1, "total": 1, **row.model_dump(exclude={"name"})}
            for row in self.in_full
        ]
        return pd.DataFrame([*(row.model_dump() for row in self.rows), *full])

    def plot(self) -> Figure:
        """Draw how many layers of each part are adapted."""
        from vlm_tune import plots

        return plots.modules_hit([(f"{row.region} {row.kind}", row.hit, row.total) for row in self.rows])

    def _parts(self) -> Table:
        from rich.table import Table

        table = Table("region", "kind", "layers adapted", "parameters", "of the model")
        table.title = f"{self.model}: {self.method}"
        table.caption = self._notices()
        for row in self.rows:
            numbers = (f"{row.parameters:,}", f"{100 * row.share:.3f} %") if row.hit else ("", "")
            table.add_row(row.region, row.kind, f"{row.hit} of {row.total}", *numbers, style="" if row.hit else "dim")
        for full in self.in_full:
            table.add_row(full.name, "", "in full", f"{full.parameters:,}", f"{100 * full.share:.3f} %")
        whole = f"{100 * self.trained_share:.3f} %"
        hit, total = sum(row.hit for row in self.rows), sum(row.total for row in self.rows)
        table.add_section()
        table.add_row("all", "", f"{hit} of {total}", f"{self.trained_parameters:,}", whole)
        return table

    def _notices(self) -> str:
        unknown = f"{self.family} is not in the registry: these layers were found by looking. "
        others = f"Never adapted: {', '.join(self.left_out)}." if self.left_out else ""
        return f"{'' if self.registered else unknown}{others}"

    def _costs(self) -> Table:
        from rich.table import Table

        guess = self.estimates
        title = "Arithmetic, nothing measured"
        table = Table("estimate", guess.device, title=title)
        room = "fits" if guess.fits else f"does NOT fit; {guess.advice}"
        table.add_row("memory", f"{guess.memory_gb:.1f} GB of {guess.device_gb:.0f} GB: {room}")
        table.add_row("", _shares(guess))
        table.add_row("steps", f"{guess.steps} ({self.num_examples} examples of {self.tokens_per_example:.0f} tokens)")
        table.add_row("passes", _passes(guess))
        table.add_row("time", duration(guess.seconds))
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
        device: Name of a card, e.g. `H200`; None takes the one at hand. Where there is none, a large model is
            planned for an H200, and the plan says so.

    Raises:
        ModelError: The architecture's layers are not found, or the model's files cannot be read.
        AdapterError: A region or kind is hit nowhere or incompletely, or a module to train in full is not there;
            the message lists the names that exist.
    """
    skeleton = base.skeleton()
    family = family_in(skeleton)
    target_modules = family.target_modules(config.regions, config.kinds)
    rows = plan_rows(skeleton, family, config)
    in_full = full_rows(skeleton, config.modules_to_save, target_modules=target_modules)
    trained = sum(row.parameters for row in rows) + sum(row.parameters for row in in_full)
    total = sum(parameter.numel() for parameter in skeleton.parameters())
    chosen, reason = pick_device(base.device, total, name=device)
    batches = _batches(base, train, task)
    sizes = _sizes(base, skeleton, config, batches, trained=trained, on_gpu=chosen.is_gpu)
    on_gpus = sizes if base.dtype == "float32" else replace(sizes, bytes_per_value=2)
    return AdapterPlan(
        model=base.name,
        family=family.name,
        registered=family.registered,
        rows=rows,
        in_full=in_full,
        left_out=left_out(skeleton, family),
        target_modules=target_modules,
        r=config.r,
        scale=config.scale,
        method=f"{'DoRA' if config.use_dora else 'LoRA'} r {config.r}, scale {spelled_scale(config)}",
        trained_parameters=trained,
        total_parameters=total,
        num_examples=len(train),
        tokens_per_example=sizes.lengths.tokens,
        estimates=estimate(sizes, config, chosen, reason=reason),
        gpus=gpu_table(on_gpus, config),
    )


def _sizes(
    base: VLM, skeleton: PreTrainedModel, config: TrainConfig, batches: Batches, *, trained: int, on_gpu: bool
) -> Sizes:
    single = base.dtype == "float32" or (base.dtype == "auto" and not on_gpu)
    return sizes_of(
        skeleton,
        family_in(skeleton),
        config,
        lengths=lengths_of(batches, skeleton.config),
        trained=trained,
        bytes_per_value=4 if single else 2,
        quantized=base.quantization is not None,
    )


def _batches(base: VLM, train: Sequence[Example], task: Task) -> Batches:
    import torch

    return Batches(train, processor=read_processor(base), task=task, dtype=torch.float32)


def read_processor(base: VLM) -> ProcessorMixin:
    """Return a model's processor without its weights.

    Raises:
        ModelError: It cannot be read.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(base.folder or base.model, revision=base.revision)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the processor of {base.model}: {error}") from error


def _shares(guess: Estimates) -> str:
    """Return what takes the memory."""
    parts = {
        "weights": guess.weights_gb,
        "adapters and optimizer": guess.adapter_gb,
        "activations": guess.activations_gb,
        "photos": guess.photos_gb,
        "driver and waste": guess.overhead_gb,
    }
    return ", ".join(f"{name} {gb:.1f}" for name, gb in parts.items() if gb > 0)


def _passes(guess: Estimates) -> str:
    """Return how a step is cut."""
    again = guess.layout.checkpointed
    recomputed = f"{again:.0%} of the layers recomputed" if again else "nothing recomputed"
    return f"of {guess.layout.micro_batch_size} examples, {recomputed}"
