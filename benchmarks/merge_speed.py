"""Merging an adapter: copies of the folder, this library's writing and proof, and PEFT's merge, on one disk in one run.

    python benchmarks/make_random_checkpoint.py qwen3-vl-8b /tmp/qwen3-vl-8b
    python benchmarks/merge_speed.py /tmp/qwen3-vl-8b --scratch /tmp/merging
    python benchmarks/merge_speed.py /tmp/tiny --tiny                       # does it run? after ... /tmp/tiny --tiny

Each row is a process of its own that begins with an empty target. Its clock runs until it says that it is done; then
what is still in memory is brought to the disk, on a clock of its own (`flush`), and the target is removed. Before each
row the base is read once, so that it lies in the page cache as far as that holds it; `--cold` asks the kernel to forget
it instead. Peak memory is the process's largest resident set while the clock ran, in parentheses what it had before
(Python, torch, transformers, CUDA's own part, and where it is said the base): what is mapped from files counts too. The
adapter is random, so its answers are noise; what is proved of them is proved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COPY = "shutil.copytree"


def cp(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Copy with coreutils; no reflinks, which copy nothing."""
    clock.start()
    subprocess.run(["cp", "-r", "--reflink=never", arguments.checkpoint, arguments.target], check=True)
    # Its memory is another process's, which is gone.
    return {key: value for key, value in clock.stop().items() if key == "seconds"}


def copytree(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Copy with Python."""
    clock.start()
    shutil.copytree(arguments.checkpoint, arguments.target)
    return clock.stop()


def weights(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Merge, and prove the weights alone."""
    return ours(arguments, clock, photos=0, loaded=False)


def fresh(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Merge and prove, in a process that has no model in memory yet."""
    return ours(arguments, clock, photos=arguments.photos, loaded=False)


def resident(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Merge and prove with the base in memory, as after a training."""
    return ours(arguments, clock, photos=arguments.photos, loaded=True)


def ours(arguments: argparse.Namespace, clock: Clock, *, photos: int, loaded: bool) -> Row:
    """Merge with this library."""
    import train_jobs

    from vlm_tune.training.merging.merge import merge
    from vlm_tune.training.merging.parts import Parts
    from vlm_tune.vlm import VLM

    base = VLM(arguments.checkpoint)
    parts = Parts(base, ((arguments.adapter, 1.0),), train_jobs.DAMAGE, base.source, "random")
    size = (120, 90) if arguments.tiny else (1000, 750)
    probe = train_jobs.photos(photos, *size) if photos else ()
    start_cuda()
    # Not the merge's own: it brings in the code of the architecture.
    base.skeleton()
    if loaded:
        base.load()
    clock.start()
    report = merge(parts, arguments.target, probe=probe)
    row = clock.stop()
    row |= {"write_s": report.write_s, "prove_s": report.prove_s, "photos": len(report.answers)}
    row |= {"max_ulps": report.max_ulps, "retained": report.retained_delta, "agreement": str(report.agreement)}
    return row


def peft_gpu(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Merge with PEFT on the GPU."""
    return peft(arguments, clock, device="cuda")


def peft_cpu(arguments: argparse.Namespace, clock: Clock) -> Row:
    """Merge with PEFT on the processor."""
    return peft(arguments, clock, device="cpu")


def peft(arguments: argparse.Namespace, clock: Clock, *, device: str) -> Row:
    """Do what PEFT's documentation says; nothing is proved."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText, AutoProcessor

    if device == "cuda":
        start_cuda()
    clock.start()
    where = {"": device} if device == "cuda" else None
    model = AutoModelForImageTextToText.from_pretrained(arguments.checkpoint, dtype=torch.bfloat16, device_map=where)
    merged = PeftModel.from_pretrained(model, str(arguments.adapter)).merge_and_unload()
    merged.save_pretrained(arguments.target)
    AutoProcessor.from_pretrained(arguments.checkpoint).save_pretrained(arguments.target)
    return clock.stop()


STAGES: dict[str, Callable[[argparse.Namespace, Clock], Row]] = {
    COPY: copytree,
    "cp": cp,
    "vlm-tune, weights proved": weights,
    "vlm-tune, proved in full": fresh,
    "vlm-tune, the same with the base in memory": resident,
    "PEFT on the GPU, nothing proved": peft_gpu,
    "PEFT on the processor, nothing proved": peft_cpu,
}


class Clock:
    """Wall time and peak memory of one stage."""

    def start(self) -> None:
        """Note the memory before, forget its peak, and start."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._before = resident_gb("VmRSS")
        if cuda():
            import torch

            torch.cuda.reset_peak_memory_stats()
        self._started = time.perf_counter()

    def stop(self) -> Row:
        """Return what was used."""
        row: Row = {"seconds": time.perf_counter() - self._started}
        row |= {"before_gb": self._before, "peak_gb": resident_gb("VmHWM")}
        if cuda():
            import torch

            row["gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return row


def resident_gb(what: str) -> float:
    """Return this process's resident set (`VmRSS`), or the largest since it was asked to forget (`VmHWM`), in GB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:")) * 1024 / 1e9


def cuda() -> bool:
    """Whether this stage has torch with a GPU."""
    return "torch" in sys.modules and sys.modules["torch"].cuda.is_available()


def start_cuda() -> None:
    """Start CUDA before the clock runs."""
    import torch

    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")


def write_adapter(checkpoint: Path, folder: Path, *, rank: int) -> None:
    """Write a random adapter for the layers of the trainer's defaults: its update is a sixth of the weights' size."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file

    import vlm_tune as vt
    from vlm_tune.families import family_in, linear_names

    config, model = vt.TrainConfig(), vt.VLM(checkpoint).skeleton()
    family, names = family_in(model), linear_names(model)
    hit = [name for part in family.require(names, config.regions, config.kinds).values() for name in part.hit]
    pattern = family.target_modules(config.regions, config.kinds)
    settings = LoraConfig(r=rank, lora_alpha=config.lora_alpha, target_modules=pattern, task_type="CAUSAL_LM")
    std, draw = model.config.get_text_config().initializer_range / 6, torch.Generator().manual_seed(0)
    tensors = {}
    for name in hit:
        out, inside = model.get_submodule(name).weight.shape
        own = std / (config.lora_alpha / rank * rank**0.5)
        tensors[f"base_model.model.{name}.lora_A.weight"] = torch.randn(rank, inside, generator=draw)
        tensors[f"base_model.model.{name}.lora_B.weight"] = own * torch.randn(out, rank, generator=draw)
    folder.mkdir(parents=True, exist_ok=True)
    settings.save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")


def measured(name: str, arguments: argparse.Namespace) -> Row:
    """Run a stage in a process of its own, and return its row."""
    shutil.rmtree(arguments.target, ignore_errors=True)
    os.sync()
    prepare(arguments.checkpoint, cold=arguments.cold)
    command = [sys.executable, __file__, str(arguments.checkpoint), "--stage", name, "--photos", str(arguments.photos)]
    command += ["--scratch", str(arguments.scratch), *(["--tiny"] if arguments.tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    row: Row = {"stage": name}
    if done.returncode:
        row["error"] = (done.stderr.strip().splitlines() or ["no word"])[-1]
    else:
        row |= json.loads(done.stdout.splitlines()[-1])
    started = time.perf_counter()
    os.sync()
    row["flush_s"] = time.perf_counter() - started
    shutil.rmtree(arguments.target, ignore_errors=True)
    print(json.dumps(row), flush=True)
    return row


def prepare(checkpoint: Path, *, cold: bool) -> None:
    """Bring the base into the page cache, or out of it."""
    for path in checkpoint.iterdir():
        with path.open("rb", buffering=0) as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                continue
            while file.read(2**26):
                pass


def markdown(rows: list[Row], checkpoint: Path, *, cold: bool) -> str:
    """Return the table, with what it was measured on."""
    from vlm_tune.versions import hardware, packages

    size = sum(path.stat().st_size for path in checkpoint.iterdir()) / 1e9
    copied = next((row["seconds"] for row in rows if row["stage"] == COPY and "seconds" in row), None)
    head = (
        "| what | write, s | prove, s | in all, s | flush, s | write (or all) / copytree | peak GB (before) | GPU GB |"
    )
    lines = [head, "|---|" + "---:|" * 7]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['stage']} | does not finish: {row['error'][:160]} | | | | | | |")
            continue
        write, prove = (f"{row[key]:.2f}" if key in row else "" for key in ("write_s", "prove_s"))
        ratio = f"{row.get('write_s', row['seconds']) / copied:.2f}" if copied else ""
        memory = f"{row['peak_gb']:.2f} ({row['before_gb']:.2f})" if "peak_gb" in row else ""
        gpu = f"{row['gpu_gb']:.1f}" if "gpu_gb" in row else ""
        cells = [row["stage"], write, prove, f"{row['seconds']:.2f}", f"{row['flush_s']:.2f}", ratio, memory, gpu]
        lines.append(f"| {' | '.join(cells)} |")
    proofs = [row for row in rows if row.get("photos")]
    notes = [f"{checkpoint.name}, {size:.2f} GB; the base is {'asked out of' if cold else 'in'} the page cache."]
    notes += [f"{hardware()}; {packages()}"]
    notes += [
        f"{row['stage']}: {row['photos']} photos, same answer as the adapter {row['agreement']}, at most "
        f"{row['max_ulps']:.3f} ulp, {row['retained']:.2%} of the update kept."
        for row in proofs
    ]
    return "\n".join([*lines, "", *notes])


def main() -> None:
    """Measure every stage and print one table."""
    arguments = parse()
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments, Clock())))
        return
    import torch

    names = [name for name in STAGES if torch.cuda.is_available() or STAGES[name] is not peft_gpu]
    write_adapter(arguments.checkpoint, arguments.adapter, rank=arguments.rank)
    rows = [measured(name, arguments) for name in names]
    if len(names) < len(STAGES):
        rows.append({"stage": "PEFT on the GPU, nothing proved", "error": "there is no GPU"})
    print(markdown(rows, arguments.checkpoint, cold=arguments.cold))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scratch", type=Path, help="folder to write into, on the base's disk; beside it by default")
    parser.add_argument("--photos", type=int, default=32, help="photos that the proof asks about")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--cold", action="store_true", help="with the base not in the page cache")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    parser.add_argument("--tiny", action="store_true", help="small photos, for a tiny checkpoint")
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.scratch = arguments.scratch or arguments.checkpoint.parent / f"{arguments.checkpoint.name}-merging"
    arguments.adapter, arguments.target = arguments.scratch / "adapter", arguments.scratch / "merged"
    return arguments


if __name__ == "__main__":
    main()
