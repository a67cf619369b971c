"""How to train: one frozen configuration, checked before anything loads."""

from __future__ import annotations

import hashlib
import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from vlm_tune.errors import TrainingError
from vlm_tune.families import Kind, Region
from vlm_tune.records import Record

__all__ = ["TrainConfig"]

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class TrainConfig(Record):
    """Everything that decides what LoRA training does to a model.

    The update added to a weight is `lora_alpha / r` times B A (Hu et al. 2021, arXiv 2106.09685), so a larger
    `r` at a fixed `lora_alpha` also means smaller steps.

    Raises:
        TrainingError: A value is out of range or a field is unknown; the message names the field.

    Example:
        >>> config = TrainConfig(batch_size=4, epochs=3)
        >>> config.num_steps(319)
        240
    """

    r: PositiveInt = 64
    """Rank of the update of each adapted weight."""
    lora_alpha: PositiveFloat = 16.0
    """Scale of the update: it is multiplied by `lora_alpha / r`."""
    lora_dropout: Fraction = 0.0
    """Share of the adapters' inputs that is dropped while training; above 0 it costs memory and time."""
    learning_rate: PositiveFloat = 2e-4
    """Largest learning rate of AdamW, reached after the warm-up."""
    batch_size: PositiveInt = 4
    """Examples per forward and backward pass."""
    gradient_accumulation: PositiveInt = 1
    """Passes whose gradients are added up before one optimizer step."""
    epochs: PositiveFloat = 3.0
    """Passes over the training examples; may be fractional."""
    regions: tuple[Region, ...] = ("vision", "projector", "language")
    """Parts of the model that get adapters."""
    kinds: tuple[Kind, ...] = ("attention",)
    """Kinds of layer that get adapters; the projector's linears count as its attention."""
    warmup_ratio: Fraction = 0.03
    """Share of the steps over which the learning rate rises from 0."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes on after the warm-up; linear and cosine end at 0."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of the adapters."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients with a larger norm are scaled down to it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, several times less memory."""
    save_every: PositiveInt | None = None
    """Optimizer steps between two checkpoints; None saves one at the end of every epoch."""
    seed: NonNegativeInt = 0
    """Decides the order of the examples, the adapters' first values and dropout."""

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise TrainingError(f"TrainConfig.{where}: {first['msg']}, got {first['input']!r}") from error

    @field_validator("regions", "kinds")
    @classmethod
    def _some_and_distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("needs at least one entry")
        if len(set(value)) != len(value):
            raise ValueError("names an entry twice")
        return value

    @property
    def scale(self) -> float:
        """What B A is multiplied by: `lora_alpha / r`."""
        return self.lora_alpha / self.r

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with whatever changes the trained adapter."""
        # How often a checkpoint is written does not change what is trained.
        return hashlib.sha256(self.model_dump_json(exclude={"save_every"}).encode()).hexdigest()[:16]

    def steps_per_epoch(self, num_examples: int) -> int:
        """Return the optimizer steps of one pass; an incomplete last batch counts as one."""
        batches = math.ceil(num_examples / self.batch_size)
        return max(1, math.ceil(batches / self.gradient_accumulation))

    def num_steps(self, num_examples: int) -> int:
        """Return the optimizer steps of the whole training."""
        return math.ceil(self.epochs * self.steps_per_epoch(num_examples))
