"""How to train: one frozen configuration, checked before anything loads."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)

from vlm_tune.errors import TrainingError
from vlm_tune.families import Kind, Region
from vlm_tune.training.augmenting.settings import Augment
from vlm_tune.training.settings import Settings

__all__ = ["TrainConfig"]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class TrainConfig(Settings):
    """Everything that decides what LoRA training does to a model.

    The update added to a weight is `lora_alpha / r` times B A (Hu et al. 2021, arXiv 2106.09685), so a larger
    `r` at a fixed `lora_alpha` also means smaller steps.

    Raises:
        TrainingError: A value is out of range or a field is unknown; the message names the field.

    Examples:
        >>> config = TrainConfig(batch_size=4, epochs=3)
        >>> config.num_steps(319)
        240
    """

    r: PositiveInt = 64
    """Rank of the update of each adapted weight."""
    lora_alpha: Positive = 16.0
    """Scale of the update: it is multiplied by `lora_alpha / r`, or by `lora_alpha / sqrt(r)` with `use_rslora`."""
    use_rslora: bool = False
    """Rank-stabilised scale (Kalajdzievski 2023, arXiv 2312.03732)."""
    use_dora: bool = False
    """Adapt direction and magnitude apart (DoRA, Liu et al. 2024, arXiv 2402.09353); slower."""
    lora_dropout: Fraction = 0.0
    """Share of the adapters' inputs that is dropped while training; above 0 it costs memory and time."""
    regions: tuple[Region, ...] = ("vision", "projector", "language")
    """Parts of the model that get adapters."""
    kinds: tuple[Kind, ...] = ("attention",)
    """Kinds of layer that get adapters; the projector's linears count as its attention."""
    modules_to_save: tuple[str, ...] = ()
    """Modules trained in full beside the adapters, by the ends of their names, e.g. `multi_modal_projector`."""
    learning_rate: Positive = 2e-4
    """Largest learning rate of AdamW, reached after the warm-up."""
    region_learning_rates: Mapping[Region, Positive] = Field(default_factory=dict)
    """Other learning rates for some of the regions; they follow the same schedule."""
    batch_size: PositiveInt = 4
    """Examples per optimizer step, over all GPUs."""
    micro_batch_size: PositiveInt | None = None
    """Examples per forward and backward pass on one GPU; None takes the most that fit into its memory."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: slower, several times less memory. None recomputes in as many
    layers as memory asks for, usually none."""
    epochs: Positive = 3.0
    """Passes over the training examples; may be fractional."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes on after the warm-up; linear and cosine end at 0."""
    weight_decay: NonNegativeFloat = Field(default=0.0, allow_inf_nan=False)
    """Decoupled weight decay of the adapters."""
    max_grad_norm: Positive = 1.0
    """Gradients with a larger norm are scaled down to it."""
    label_smoothing: Fraction = 0.0
    """Share of every answer token's probability that is spread over the whole vocabulary."""
    class_weights: Literal["balanced"] | Mapping[str, Positive] | None = None
    """Weights of the examples' losses by label; `balanced` weighs each label by 1 over its count."""
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    """`balanced` draws every label equally often, the photos of rare labels several times an epoch."""
    augment: Augment | None = None
    """Changes to the training photos, mixing included; None trains on them as they are."""
    keep: Literal["last", "best"] = "last"
    """Which state becomes the adapter: the last one, or the one most accurate on the validation examples."""
    patience: PositiveInt | None = None
    """Stop after so many epochs without better accuracy on the validation examples."""
    fast: bool = True
    """Use this library's own forward pass where it knows the architecture; False takes the stock one."""
    save_every: PositiveInt | None = None
    """Optimizer steps between two checkpoints; None saves one at the end of an epoch, at most one a minute."""
    report_to: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Trackers that get losses, learning rates and accuracies as they come; each needs its own package."""
    seed: NonNegativeInt = 0
    """Decides the order of the examples, the adapters' first values and dropout."""

    @field_validator("regions", "kinds")
    @classmethod
    def _some_and_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("needs at least one entry")
        if len(set(value)) != len(value):
            raise ValueError("names an entry twice")
        return value

    @model_validator(mode="after")
    def _compatible(self) -> Self:
        stray = [region for region in self.region_learning_rates if region not in self.regions]
        if stray:
            raise TrainingError(
                f"TrainConfig.region_learning_rates names {', '.join(stray)}, which are not in "
                f"regions={list(self.regions)}"
            )
        if self.micro_batch_size is not None and self.micro_batch_size > self.batch_size:
            raise TrainingError(
                f"TrainConfig.micro_batch_size is {self.micro_batch_size}, more than batch_size={self.batch_size}"
            )
        return self

    @property
    def scale(self) -> float:
        """What B A is multiplied by: `lora_alpha / r`, or `lora_alpha / sqrt(r)` with `use_rslora`."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with whatever changes the trained adapter by more than rounding."""
        # How often a checkpoint is written, who is told, and how a step is cut does not change what is trained: a run
        # that needed too much memory goes on with what needs less.
        how = {"save_every", "report_to", "micro_batch_size", "gradient_checkpointing"}
        written = self.model_dump_json(exclude=how)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @property
    def changes_photos(self) -> bool:
        """Whether `augment` changes any photo."""
        return self.augment is not None and not self.augment.is_off

    def steps_per_epoch(self, num_examples: int) -> int:
        """Return the optimizer steps of one pass; an incomplete last batch counts as one."""
        return math.ceil(num_examples / self.batch_size)

    def num_steps(self, num_examples: int) -> int:
        """Return the optimizer steps of the whole training."""
        # 1.1 epochs of 10 steps are 11 steps, though 1.1 * 10 is a little more than 11.
        return math.ceil(round(self.epochs * self.steps_per_epoch(num_examples), 6)) or 1
