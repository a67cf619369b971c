"""`VLM`: a light handle on any open vision-language model; its weights load when first needed.

A handle is a name, a device and a type. The weights live in the one `Resident` of the process (see
`resident.py`), which `VLM.load` returns: base answers, the overfit gate, training and adapter answers all use
it, and loading another model's weights drops the first one's.

Training and adapters do this:

    resident = vlm.load()
    with resident.adapted(wrap) as peft_model:                          # wrap: model -> PeftModel
        answers(resident, examples, task)                               # answering.py: with the adapter on
        score_labels(resident.model, resident.processor, images, task)  # scoring.py: the same, as numbers

While an adapter is on, `VLM.predict` refuses: it promises the bare model's answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vlm_tune import _processes
from vlm_tune.errors import ModelError
from vlm_tune.records import Example, Prediction
from vlm_tune.task import Task
from vlm_tune.vlm import loading, resident
from vlm_tune.vlm.answering import Mode, answers
from vlm_tune.vlm.quantization import Quantization, check_takes_adapters, stored
from vlm_tune.vlm.resident import Resident
from vlm_tune.vlm.scoring import SEMANTICS
from vlm_tune.vlm.sharding import load_fitting, too_large

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = ["VLM", "AskedBy", "DType"]

AskedBy = Literal["one", "each", "all"]
"""Which of several processes ask: the first alone, each its part, or all the same in step."""

DType = Literal["auto", "float32", "bfloat16", "float16"]


class VLM:
    """A vision-language model that answers closed questions about photos; a `Predictor`.

    Args:
        model: A Hugging Face id such as `Qwen/Qwen3-VL-8B-Instruct`, or a folder of `save_pretrained`.
            Only safetensors weights are read, and no code that comes with a model is run.
        revision: Branch, tag or commit of an id.
        dtype: Type of the weights. `auto`: float32 on a CPU; elsewhere the checkpoint's own where that is a
            half-precision type, and bfloat16 otherwise.
        device: `auto` (CUDA, else MPS, else CPU) or what torch understands, e.g. `cuda:1`.
        quantization: `int8` and `nf4` put the language model's linear layers into eight and four bits as they are
            read (needs the extra `quant`): less memory, slower, and not quite the same answers. None keeps them as
            they are stored, which may be quantised too: see `export`.
        answer: `score` compares the exact log-probabilities of all answers and always gives one of them: the
            class names or, for a multi-label task of up to 10 classes, all lists of them. `score_per_token` divides
            each by its number of tokens. `generate` lets the model write freely and parses its words strictly.
        batch_size: Photos per batch; None chooses by device. Halved by itself when memory runs out.
        name: How results call the model; by default the last part of its id or path, and the quantization.

    Raises:
        ModelError: It is a folder that does not exist or holds no model.

    Examples:
        >>> VLM("Qwen/Qwen3-VL-8B-Instruct").name
        'Qwen3-VL-8B-Instruct'
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        dtype: DType = "auto",
        device: str = "auto",
        quantization: Quantization | None = None,
        answer: Mode = "score",
        batch_size: int | None = None,
        name: str | None = None,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ModelError(f"batch_size must be at least 1, got {batch_size}")
        if quantization not in (None, *get_args(Quantization)):
            raise ModelError(f"quantization must be 'int8', 'nf4' or None, got {quantization!r}")
        for name_of, value, known in (("answer", answer, get_args(Mode)), ("dtype", dtype, get_args(DType))):
            if value not in known:
                raise ModelError(f"{name_of} must be one of {', '.join(known)}, got {value!r}")
        self.folder = loading.model_folder(model)
        self.model = str(model)
        self.revision = revision
        self.dtype = dtype
        self.device = device
        self.quantization = quantization
        self.answer = answer
        self.batch_size = batch_size
        self._given_name = name
        self.name = name or self._default_name()

    def __repr__(self) -> str:
        quantization = f", quantization={self.quantization!r}" if self.quantization else ""
        return (
            f"VLM({self.model!r}, dtype={self.dtype!r}, device={self.device!r}{quantization}, answer={self.answer!r})"
        )

    def __getstate__(self) -> dict[str, object]:
        # What files and the device say is read anew in another process: it may be on another machine.
        known = vars(type(self))
        return {name: value for name, value in vars(self).items() if not isinstance(known.get(name), cached_property)}

    @cached_property
    def config(self) -> PreTrainedConfig:
        """The transformers configuration; reads a small file, from the Hub where the model is an id.

        Raises:
            ModelError: It cannot be read, or is not a vision-language model's.
        """
        return loading.read_config(self.folder or self.model, revision=self.revision)

    @cached_property
    def source(self) -> str:
        """Which weights these are: id and commit, or a digest of the folder (see `identity.folder_digest`).

        Quantised ones are others than those they were made of: `+nf4` behind it says so.

        Raises:
            ModelError: As `config`; or the folder cannot be read.
        """
        stored = loading.source_of(self.folder or self.model, self.config, revision=self.revision)
        return f"{stored}+{self.quantization}" if self.quantization else stored

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change whenever the answers could: weights, type, way of answering.

        Raises:
            ModelError: As `source`.
        """
        how = [self.source, str(self._dtype), self.answer, SEMANTICS]
        return hashlib.sha256(json.dumps(how).encode()).hexdigest()[:16]

    @property
    def asked_by(self) -> AskedBy:
        """Which of several processes ask it: each its part of the photos, on its own GPU.

        All ask the same in step where the weights are too large for one GPU and spread over all of them, which is no
        quicker than one. One asks where `device` names a certain GPU.

        Raises:
            ModelError: As `config`.
        """
        if ":" in self.device:
            return "one"
        return "all" if too_large(self) else "each"

    def predict(self, examples: Sequence[Example], task: Task) -> Iterator[Prediction]:
        """Yield one prediction per example, in no particular order; loads the weights first if need be.

        A photo that cannot be read yields a prediction with the outcome `failed`. Scores are
        log-probabilities normalised over all answers; for a multi-label task, that of a class is the exact
        log-probability that the answer names it, while the label is the likeliest answer as a whole.

        Raises:
            ModelError: The model cannot be loaded, or one photo alone is too large for the memory.
            TaskError: The answers are too many to be scored; `answer="generate"` takes any task.
        """
        if self.answer != "generate":
            # Before any weights are read: answers that cannot be listed raise here.
            _ = task.answers
        loaded = load_fitting(self)
        if loaded.adapted_now:
            raise ModelError(
                f"an adapter is on {self.name} at the moment, so these would not be its own answers; "
                "use up or close the adapter's predictions first"
            )
        yield from answers(
            loaded, examples, task, mode=self.answer, batch_size=self.batch_size, model_version=self.source
        )

    def load(self) -> Resident:
        """Return the resident model with these weights, reading them if they are not in memory.

        Raises:
            ModelError: The weights cannot be read or are incomplete, or an adapter is on another model.
            MissingExtraError: They are to be quantised, and bitsandbytes is not installed.
        """
        where, dtype = loading.pick_device(self.device), self._dtype
        return resident.hold(
            self._key,
            lambda: loading.read_model(
                self.folder or self.model,
                self.config,
                revision=self.revision,
                device=where,
                dtype=dtype,
                quantize=self.quantization,
            ),
        )

    @property
    def stored_quantization(self) -> str | None:
        """How the weights are quantised on disk: `int8`, `nf4`, another method's name; None where they are not.

        Raises:
            ModelError: As `config`.
        """
        return stored(self.config)

    def check_takes_adapters(self) -> None:
        """Check that adapters can be trained on these weights, before any are read.

        Raises:
            AdapterError: They are stored quantised, or are asked for in `int8`.
        """
        on_disk = self.stored_quantization
        check_takes_adapters(self.quantization or on_disk, exported=on_disk is not None)

    def export(self, path: Path | str, quantization: Quantization) -> VLM:
        """Write the model to a folder with its language model's linear layers in eight or four bits, and return it.

        The folder is a whole model, with processor, chat template and a model card; `VLM(path)` reads it, as
        `from_pretrained` does. What is stored is quantised, whatever this handle's own quantisation. An export
        that is there already, of the same weights, is not made again.

        Args:
            path: The folder to write; it may not exist yet.
            quantization: `int8` or `nf4`; see `vlm_tune.vlm.quantization`.

        Raises:
            MissingExtraError: bitsandbytes is not installed.
            ModelError: The stored weights are quantised already, or do not fit the device.
            StorageError: The folder holds something else, or the disk is too small; nothing half-written is left.

        Examples:
            >>> tuned = VLM("runs/damage/merged")  # doctest: +SKIP
            >>> tuned.export("runs/damage/int8", quantization="int8").name  # doctest: +SKIP
            'merged-int8'
        """
        from vlm_tune.vlm.export import export

        _processes.by_one(export)(self, Path(path), quantization)
        return self.made_into(path, name=f"{self.unquantized().name}-{quantization}")

    def made_into(self, folder: Path | str, *, name: str) -> VLM:
        """Return what was made of this model, in a folder of its own, to be loaded and asked as this one is.

        Args:
            folder: The folder of the other model, whose weights are as they are stored.
            name: How results call it.
        """
        return self._asked_alike(folder, name=name)

    def unload(self) -> None:
        """Free the weights if they are this model's; the next use reads them again."""
        resident.drop(self._key)

    def unquantized(self) -> VLM:
        """Return the same model with its weights as they are stored; itself, if that is what it has.

        Examples:
            >>> VLM("Qwen/Qwen3-VL-8B-Instruct", quantization="nf4").unquantized().name
            'Qwen3-VL-8B-Instruct'
        """
        if self.quantization is None:
            return self
        return self._asked_alike(self.folder or self.model, name=self._given_name, revision=self.revision)

    def skeleton(self) -> PreTrainedModel:
        """Return the model without weights (on torch's meta device): module names and shapes for planning.

        Raises:
            ModelError: As `config`.
        """
        return loading.skeleton(self.config)

    def _asked_alike(self, model: Path | str, *, name: str | None, revision: str | None = None) -> VLM:
        device, answer, batch_size = self.device, self.answer, self.batch_size
        return VLM(
            model, revision=revision, dtype=self.dtype, device=device, answer=answer, batch_size=batch_size, name=name
        )

    def _default_name(self) -> str:
        stored = (self.folder.resolve() if self.folder else Path(self.model)).name
        return f"{stored}-{self.quantization}" if self.quantization else stored

    @cached_property
    def _dtype(self) -> str:
        if self.dtype != "auto":
            return self.dtype
        return loading.pick_dtype(loading.pick_device(self.device), self.config)

    @property
    def _key(self) -> str:
        return f"{self.source} {self._dtype} {loading.pick_device(self.device)}"
