"""Merging an adapter into its base on disk, tensor by tensor, and proving that nothing was lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlm_tune import _console, _files
from vlm_tune.errors import MergeError, StorageError
from vlm_tune.records import Example
from vlm_tune.statistics import wilson
from vlm_tune.training.merging.merge_report import REPORT_FILE, MergeReport
from vlm_tune.training.merging.probe import check, probe_answers
from vlm_tune.training.merging.stored import StoredTensor, copy_files, same_bytes, stored_tensors

if TYPE_CHECKING:
    import torch

    from vlm_tune.training.adapter import Adapter
    from vlm_tune.vlm import VLM

__all__ = ["merge"]


_MAX_ULPS = 0.501
"""Rounding a float64 sum to the nearest 16- or 32-bit number moves it by at most half a unit in the last
place; the thousandth allows for torch's detour over float32."""


def merge(adapter: Adapter, path: Path | str, *, probe: Sequence[Example], tolerance: float = 0.5) -> MergeReport:
    """Merge an adapter into its base checkpoint and prove it; nothing is left at `path` when the proof fails.

    Shards are copied and the adapted tensors replaced in place, so memory holds one tensor at a time. Each
    new weight is W + (alpha / r) B A, summed in float64 and rounded once to the checkpoint's type. The proof
    then reads the files back: untouched tensors must be byte-identical, changed ones within half a unit in
    the last place of the exact sum, and the folder, loaded like any user would load it, must answer the
    probe images as the adapter does.

    The adapter of a quantised base goes into the unquantised weights. Proved is that the merged model is the
    adapter on those; how far its answers are from the adapter on the quantised base is reported beside it, and
    fails nothing: it is the error of the quantisation.

    Args:
        adapter: The trained adapter.
        path: Folder of the merged model.
        probe: Images to compare answers on.
        tolerance: Score difference in nats that counts as noise: an answer may only change where the adapter
            is less sure than this, and the mean difference may only be larger while it is less than half of
            what training changed. It must be less than all of that in any case.

    Raises:
        MergeError: An adapted layer is not in the checkpoint, or the proof fails.
        ImageError: A probe image cannot be read.
        StorageError: The disk is too small.
    """
    started = time.perf_counter()
    target = Path(path)
    if (done := _finished(target, adapter)) is not None:
        return done
    source = _checkpoint_folder(adapter.base)
    updates = _read_updates(adapter.path)
    tensors = stored_tensors(source)
    names = _checkpoint_names(updates, tensors, adapter)
    files = copy_files(source)
    _check_space(target, sum(file.stat().st_size for file in files))
    with _files.atomic_directory(target) as folder:
        for file in files:
            shutil.copyfile(file, folder / file.name)
        merged = stored_tensors(folder)
        with _console.progress("Merging", total=2 * len(updates)) as bar:
            for module, update in updates.items():
                name = names[module]
                merged[name].overwrite(update.exact_sum(tensors[name]).to(merged[name].read().dtype).cpu())
                bar.advance()
            rounding = _prove_tensors(updates, names, tensors, merged, bar)
        answers = probe_answers(adapter, folder, probe)
        trained = [answer.trained == answer.merged for answer in answers if answer.trained is not None]
        report = MergeReport(
            tensors_changed=len(updates),
            tensors_untouched=len(tensors) - len(updates),
            max_ulps=rounding.max_ulps,
            retained_delta=rounding.retained,
            agreement=wilson(sum(answer.merged == answer.adapter for answer in answers), len(answers)),
            base_agreement=wilson(sum(answer.base == answer.adapter for answer in answers), len(answers)),
            max_score_difference=max((answer.merged_difference for answer in answers), default=0.0),
            answers=answers,
            size_bytes=sum(tensor.end - tensor.begin for tensor in merged.values()),
            seconds=time.perf_counter() - started,
            base_quantization=adapter.base.quantization,
            trained_agreement=wilson(sum(trained), len(trained)) if trained else None,
            adapter_fingerprint=adapter.fingerprint,
        )
        check(report, tolerance=tolerance, max_ulps=_MAX_ULPS)
        report.save(folder / REPORT_FILE)
    _tell_quantization(report, adapter.base)
    return report


@dataclass(frozen=True)
class _Update:
    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def delta(self) -> torch.Tensor:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return self.scale * (self.b.to(device).double() @ self.a.to(device).double())

    def exact_sum(self, tensor: StoredTensor) -> torch.Tensor:
        delta = self.delta()
        return tensor.read().to(delta.device).double() + delta


@dataclass(frozen=True)
class _Rounding:
    max_ulps: float
    retained: float


def _tell_quantization(report: MergeReport, base: VLM) -> None:
    if report.base_quantization is None:
        return
    shift, same = report.quantization_shift, report.trained_agreement
    moved = "" if shift is None else f"; that moves its scores by {shift:.2g} nats (same answer: {same})"
    _console.notice(
        f"The adapter was trained on {report.base_quantization} weights and merged into the unquantised ones of "
        f"{base.unquantized().name}{moved}. Evaluate the merged model, which is another than was trained."
    )


def _finished(target: Path, adapter: Adapter) -> MergeReport | None:
    if not (target / REPORT_FILE).exists():
        return None
    report = MergeReport.load(target)
    return report if report.adapter_fingerprint == adapter.fingerprint else None


def _checkpoint_folder(base: VLM) -> Path:
    if base.folder is not None:
        return base.folder
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model"]
    return Path(snapshot_download(base.model, revision=base.revision, allow_patterns=wanted))


def _read_updates(folder: Path) -> dict[str, _Update]:
    from safetensors import safe_open

    config = _files.read_json(folder / "adapter_config.json")
    _check_kind(config, folder)
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        found = {key.removeprefix("base_model.model."): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    modules = [name.removesuffix(".lora_A.weight") for name in found if name.endswith(".lora_A.weight")]
    if 2 * len(modules) != len(found):
        odd = next(name for name in found if not name.endswith((".lora_A.weight", ".lora_B.weight")))
        raise MergeError(f"{folder} holds {odd}, which is no LoRA matrix; this merge takes plain LoRA adapters")
    return {
        module: _Update(found[f"{module}.lora_A.weight"], found[f"{module}.lora_B.weight"], scale) for module in modules
    }


def _check_kind(config: Mapping[str, object], folder: Path) -> None:
    kinds = {
        "DoRA": config.get("use_dora"),
        "modules trained in full": config.get("modules_to_save"),
        "ranks or scales by layer": config.get("rank_pattern") or config.get("alpha_pattern"),
    }
    unsupported = [kind for kind, there in kinds.items() if there]
    if unsupported:
        raise MergeError(
            f"{folder} is an adapter with {' and '.join(unsupported)}, which this merge does not take; "
            "evaluate the adapter itself, or train without"
        )


def _checkpoint_names(
    updates: Mapping[str, _Update], tensors: Mapping[str, StoredTensor], adapter: Adapter
) -> dict[str, str]:
    names = {module: f"{module}.weight" for module in updates}
    if any(name not in tensors for name in names.values()):
        # An older checkpoint names its layers differently; transformers knows how to read them.
        stored_as = _renamed(tensors, adapter.base)
        names = {module: stored_as.get(name, name) for module, name in names.items()}
    missing = [module for module, name in names.items() if name not in tensors]
    if missing:
        raise MergeError(
            f"{len(missing)} adapted layers are not in the checkpoint of {adapter.base.name}, "
            f"first {missing[0]}; is this the base the adapter was trained on?"
        )
    return names


def _renamed(tensors: Mapping[str, StoredTensor], base: VLM) -> dict[str, str]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    model = base.skeleton()
    renamings = [rule for rule in get_model_conversion_mapping(model) if isinstance(rule, WeightRenaming)]
    return {
        rename_source_key(name, renamings, [], model.base_model_prefix, model.state_dict())[0]: name for name in tensors
    }


def _check_space(target: Path, needed: int) -> None:
    existing = next(parent for parent in (target, *target.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(
            f"merging into {target} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some space or choose another disk"
        )


def _prove_tensors(
    updates: Mapping[str, _Update],
    names: Mapping[str, str],
    before: Mapping[str, StoredTensor],
    after: Mapping[str, StoredTensor],
    bar: _console.Bar,
) -> _Rounding:
    changed = set(names.values())
    for name in before:
        if name not in changed and not same_bytes(before[name], after[name]):
            raise MergeError(f"{name} should be untouched and is not; the disk may be faulty, merge again")
    worst, kept, wanted = 0.0, 0.0, 0.0
    for module, update in updates.items():
        name = names[module]
        delta = update.delta()
        base = before[name].read().to(delta.device).double()
        stored = after[name].read().to(delta.device)
        worst = max(worst, _ulps(stored, base + delta))
        kept += float(((stored.double() - base) * delta).sum())
        wanted += float((delta * delta).sum())
        bar.advance()
    return _Rounding(worst, kept / wanted if wanted else 1.0)


def _ulps(stored: torch.Tensor, exact: torch.Tensor) -> float:
    """Return the largest |stored - exact| in units in the last place of the exact number."""
    import torch

    info = torch.finfo(stored.dtype)
    exponent = torch.frexp(exact).exponent - 1
    unit = torch.ldexp(torch.full_like(exact, info.eps), exponent).clamp_min(info.smallest_normal * info.eps)
    return float(((stored.double() - exact).abs() / unit).max())
