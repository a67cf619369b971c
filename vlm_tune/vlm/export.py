"""A model as a folder of weights in eight or four bits, which says in words what it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from pydantic import NonNegativeFloat, NonNegativeInt, ValidationError

from vlm_tune import _files
from vlm_tune.errors import ModelError, StorageError
from vlm_tune.records import Record
from vlm_tune.versions import packages
from vlm_tune.vlm import loading, resident
from vlm_tune.vlm.card import base_model_of, rows, write_card
from vlm_tune.vlm.quantization import Quantization, kept, weight_bytes

if TYPE_CHECKING:
    from vlm_tune.vlm.model import VLM
    from vlm_tune.vlm.resident import Resident

__all__ = ["EXPORT_FILE", "Export", "export", "folder_bytes", "write_export_card"]

EXPORT_FILE = "vlm_tune_export.json"
"""The record's name in an exported folder."""

_SHARD = "5GB"
_WORDS: dict[Quantization, tuple[str, str]] = {
    "int8": ("8", "LLM.int8: a scale for every row of a weight, columns of inputs beyond 6 multiplied unquantised"),
    "nf4": ("4.127", "NF4: sixteen levels, a scale for every 64 weights, the scales quantised again"),
}


class Export(Record):
    """What an exported folder was made of, and how."""

    schema_version: Literal[1] = 1
    """Version of this layout."""
    name: str
    """What the model is called."""
    source: str
    """Which weights were quantised: id and commit, or a digest of their folder; see `VLM.source`."""
    base_model: str | None
    """Hugging Face id of the model they come from, where it is known."""
    quantization: Quantization
    """The format."""
    dtype: str
    """The type of what is not quantised."""
    kept: tuple[str, ...]
    """Modules whose linear layers are not quantised."""
    weight_bytes: NonNegativeInt
    """Memory that the weights take, scales included."""
    seconds: NonNegativeFloat
    """Time it took to read, quantise and write them."""
    packages: dict[str, str]
    """Versions of the packages it was made with."""

    @classmethod
    def load(cls, folder: Path | str) -> Export:
        """Read the record of an exported folder.

        Raises:
            StorageError: It has none.
        """
        path = Path(folder) / EXPORT_FILE
        try:
            return cls.model_validate(_files.read_json(path))
        except ValidationError as error:
            raise StorageError(f"{path} is not an export's record: {error}") from error


def export(model: VLM, path: Path, quantization: Quantization) -> Export:
    """Write a model's stored weights quantised, with its processor and a card; see `VLM.export`.

    Args:
        model: The model; it is read anew, quantised, to its device, and freed again.
        path: The folder.
        quantization: The format.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
        ModelError: As `VLM.export`.
        StorageError: As `VLM.export`.
    """
    if quantization not in get_args(Quantization):
        raise ModelError(f"quantization must be 'int8' or 'nf4', got {quantization!r}")
    stored = model.unquantized()
    if stored.stored_quantization is not None:
        raise ModelError(f"{stored.name} is in {stored.stored_quantization} already; export the unquantised model")
    dtype = stored.dtype if stored.dtype != "auto" else _stored_dtype(stored)
    if (done := _finished(path, stored.source, quantization, dtype)) is not None:
        return done
    started = time.perf_counter()
    key = f"{stored.source}+{quantization} {dtype} to be exported"
    held = resident.hold(key, lambda: _read(stored, quantization, dtype))
    try:
        size = weight_bytes(held.model)
        _check_space(path, size)
        with _files.atomic_directory(path) as folder:
            _save(held, folder, path)
            record = Export(
                name=f"{stored.name}-{quantization}",
                source=stored.source,
                base_model=stored.model if stored.folder is None else base_model_of(stored.folder),
                quantization=quantization,
                dtype=dtype,
                kept=tuple(kept(stored.skeleton())),
                weight_bytes=size,
                seconds=time.perf_counter() - started,
                packages=packages(),
            )
            _files.write_text(folder / EXPORT_FILE, record.model_dump_json(indent=2) + "\n")
            write_export_card(folder)
    finally:
        del held
        resident.drop(key)
    return record


def write_export_card(folder: Path, *, measured: str | None = None) -> Path:
    """Write the model card of an exported folder.

    Args:
        folder: The folder, with its record.
        measured: What was measured, in Markdown; None says that nothing was.

    Raises:
        StorageError: The folder is no export, or the disk is full.
    """
    record = Export.load(folder)
    bits, how = _WORDS[record.quantization]
    made_of = record.base_model or "a local model"
    facts = {
        "made of": f"{made_of} ({record.source})",
        "format": f"bitsandbytes {record.packages['bitsandbytes']}, {how}",
        f"in {bits} bits": "the linear layers of the language model's blocks",
        f"in {record.dtype}": f"{', '.join(record.kept)}; embeddings, norms and convolutions",
        "weights in memory": f"{record.weight_bytes / 1e9:.3f} GB",
    }
    return write_card(
        folder,
        record.name,
        base_model=record.base_model,
        relation="quantized",
        tags=["bitsandbytes", "8-bit" if record.quantization == "int8" else "4-bit"],
        sections={
            "What it is": "A vision-language model whose weights were quantised after training, "
            "without looking at any data.\n\n" + rows(facts),
            "What was measured": measured or "Nothing yet. Quantised weights answer differently: evaluate before use.",
            "How to use it": _USE,
            "Limits": _LIMITS[record.quantization] + _COMMON_LIMITS,
        },
    )


def folder_bytes(folder: Path) -> int:
    """Return the size of the files of a model folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _read(stored: VLM, quantization: Quantization, dtype: str) -> Resident:
    return loading.read_model(
        stored.folder or stored.model,
        stored.config,
        revision=stored.revision,
        device=loading.pick_device(stored.device),
        dtype=dtype,
        quantize=quantization,
    )


def _stored_dtype(model: VLM) -> str:
    found = str(getattr(model.config, "dtype", None)).removeprefix("torch.")
    return found if found in ("bfloat16", "float16", "float32") else "bfloat16"


def _finished(path: Path, source: str, quantization: Quantization, dtype: str) -> Export | None:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return None
    if (path / EXPORT_FILE).exists():
        record = Export.load(path)
        if (record.source, record.quantization, record.dtype) == (source, quantization, dtype):
            return record
    raise StorageError(f"{path} is there already and is not this export; choose another folder, or remove it")


def _check_space(path: Path, needed: int) -> None:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"exporting to {path} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some space or choose another disk"
        )


def _save(held: Resident, folder: Path, target: Path) -> None:
    from safetensors import SafetensorError

    try:
        with loading.without_bars():
            held.model.save_pretrained(folder, max_shard_size=_SHARD)
            held.processor.save_pretrained(folder)
    except SafetensorError as error:
        # safetensors wraps what the system said, a full disk for instance.
        raise StorageError(f"cannot write {target}: {error}; nothing was left behind") from error


_USE = """\
With vlm-tune, which scores the classes exactly:

```python
import vlm_tune as vt

model = vt.VLM("path/to/this/folder")
```

With transformers and bitsandbytes: `AutoModelForImageTextToText.from_pretrained("path/to/this/folder")`."""

_LIMITS: dict[Quantization, str] = {
    "int8": "- Inputs of a product are rounded to 8 bits too. Which columns are spared is decided over a whole batch: "
    "an answer can depend, by rounding, on the photos asked beside it.\n",
    "nf4": "- A product turns its weights back into 16 bits first, so it is slower than with 16-bit weights where many "
    "tokens are read at once, as photos are.\n",
}
_COMMON_LIMITS = """\
- Adapters cannot be merged into these weights: train and merge on the model this was made of.
- It inherits that model's licence, and its faults."""
