"""What an adapter makes of each weight: low-rank sums, their magnitudes, and modules trained in full."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vlm_tune.errors import MergeError
from vlm_tune.training.merging.kinds import check_kind, scale
from vlm_tune.training.merging.stored import StoredTensor, read_header

if TYPE_CHECKING:
    import torch

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "LowRank", "Term", "Update", "Whole", "read_sums", "read_updates"]

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

_PREFIX = "base_model.model."
_A, _B, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"


class Update(Protocol):
    """How one weight becomes another."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it fits."""
        ...

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """What it is made of."""
        ...

    def on(self, device: str) -> Callable[[torch.Tensor, slice], torch.Tensor]:
        """Return what takes some rows of the base's weight in float64, and which they are, and returns the new ones."""
        ...


@dataclass(frozen=True)
class Term:
    """One adapter's share of a layer's update: scale times B A."""

    a: StoredTensor
    b: StoredTensor
    scale: float


@dataclass(frozen=True)
class LowRank:
    """W plus the sum of all scale B A; with magnitudes (DoRA), each row is then given the length that they say.

    Source: Hu et al. 2021, arXiv 2106.09685; Liu et al. 2024, arXiv 2402.09353, equation 5, as PEFT has it.
    """

    terms: tuple[Term, ...]
    magnitude: StoredTensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it fits."""
        return (self.terms[0].b.shape[0], self.terms[0].a.shape[1])

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """What it is made of."""
        matrices = tuple(matrix for term in self.terms for matrix in (term.a, term.b))
        return matrices if self.magnitude is None else (*matrices, self.magnitude)

    def on(self, device: str) -> Callable[[torch.Tensor, slice], torch.Tensor]:
        """Return what sums some rows."""
        import torch

        # In float64: a float32 product follows the process's TF32 switch, and where W and B A all but cancel, it has
        # not enough digits left for one rounding to be the only error.
        a = torch.cat([term.a.read().to(device).double() for term in self.terms])
        b = torch.cat([term.scale * term.b.read().to(device).double() for term in self.terms], dim=1)
        lengths = None if self.magnitude is None else self.magnitude.read().to(device).double().flatten()

        def new_rows(base: torch.Tensor, rows: slice) -> torch.Tensor:
            total: torch.Tensor = torch.addmm(base, b[rows], a)
            if lengths is None:
                return total
            stretched: torch.Tensor = total * (lengths[rows] / torch.linalg.vector_norm(total, dim=1))[:, None]
            return stretched

        return new_rows


@dataclass(frozen=True)
class Whole:
    """A tensor that was trained in full."""

    tensor: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight that it fits."""
        return self.tensor.shape

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """What it is made of."""
        return (self.tensor,)

    def on(self, device: str) -> Callable[[torch.Tensor, slice], torch.Tensor]:
        """Return what reads some rows."""
        return lambda base, rows: self.tensor.read(rows).to(device).double()


def read_updates(adapters: Sequence[tuple[Path, float]]) -> dict[str, Update]:
    """Return what becomes of each weight, by its name in memory.

    Args:
        adapters: Folders of adapters, and what each one's update is multiplied by.

    Raises:
        MergeError: An adapter is of a kind that is not merged, incomplete, or not a number somewhere; or one that is
            weighted is more than low-rank products.
    """
    if len(adapters) == 1 and adapters[0][1] == 1:
        return _read(adapters[0][0])
    return dict(read_sums(adapters))


def read_sums(adapters: Sequence[tuple[Path, float]]) -> dict[str, LowRank]:
    """Return the weighted sum of several adapters' updates of each weight, by its name in memory.

    Raises:
        MergeError: As `read_updates`; or an adapter is more than low-rank products.
    """
    terms: dict[str, list[Term]] = {}
    for folder, weight in adapters:
        for name, update in _read(folder).items():
            if not isinstance(update, LowRank) or update.magnitude is not None:
                what = "DoRA magnitudes" if isinstance(update, LowRank) else "modules trained in full"
                raise MergeError(f"{folder} has {what}, which cannot be weighted and summed; merge it alone, weight 1")
            terms.setdefault(name, []).extend(Term(one.a, one.b, weight * one.scale) for one in update.terms)
    return {name: LowRank(tuple(found)) for name, found in terms.items()}


def _read(folder: Path) -> dict[str, Update]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MergeError(f"{folder / CONFIG_FILE} cannot be read ({error}); train the adapter again") from error
    check_kind(config, folder)
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in read_header(folder / WEIGHTS_FILE)[1].items()}
    modules = [name.removesuffix(_A) for name in found if name.endswith(_A)]
    updates: dict[str, Update] = {}
    for module in modules:
        a, b, magnitude = (found.pop(f"{module}{end}", None) for end in (_A, _B, _MAGNITUDE))
        if a is None or b is None or (magnitude is None) == bool(config.get("use_dora")):
            raise MergeError(f"{folder} holds not all matrices of {module}; train the adapter again")
        if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
            raise MergeError(
                f"{folder} has {module} with matrices of {a.shape} and {b.shape}; linear layers are merged, others "
                "are not: answer with the adapter itself, or train without this layer"
            )
        updates[f"{module}.weight"] = LowRank((Term(a, b, scale(config, module, a.shape[0])),), magnitude)
    for name, tensor in found.items():
        if ".lora_" in name or not config.get("modules_to_save"):
            raise MergeError(
                f"{folder} holds {name}, which belongs to no linear layer and to no module trained in full; "
                "answer with the adapter itself"
            )
        updates[name] = Whole(tensor)
    if not updates:
        raise MergeError(f"{folder} holds no tensors; train the adapter again")
    _check_numbers(updates)
    return updates


def _check_numbers(updates: Mapping[str, Update]) -> None:
    for tensor in (tensor for update in updates.values() for tensor in update.tensors):
        if not all(bool(tensor.read(rows).isfinite().all()) for rows in tensor.blocks()):
            raise MergeError(
                f"{tensor.file} has values in {tensor.name} that are not finite numbers: the training went wrong; "
                "look at its losses and lower the learning rate"
            )
