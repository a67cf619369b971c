"""Exact search beside its peers: every query against every reference, all pairs above a cut and each query's nearest.

    python benchmarks/leakage_search.py                     # 50,000 x 10,000 at 512 dimensions on the CPU
    python benchmarks/leakage_search.py --device cuda       # 1,000,000 x 1,000,000 on one GPU

Peers that are not installed are left out: faiss-cpu and imagededup on the CPU. The vectors are random, and one query in
a hundred is a noisy copy of a reference. Before anything is timed the results are compared with a double-precision
product. The ratio is to the bare matrix product, which keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from vlm_tune.leakage.neighbours import above, scan

CUT = 0.5
WITHIN = 20_000


def unit(num: int, dim: int, device: str, seed: int) -> torch.Tensor:
    """Random rows of norm 1."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(num, dim, device=device, generator=generator), dim=1)


def planted(num: int, references: torch.Tensor) -> torch.Tensor:
    """Random queries, every hundredth of them a noisy copy of a reference: a cosine of 0.45 to 0.9."""
    queries = unit(num, references.shape[1], str(references.device), 1)
    copies = references[torch.arange(0, num, 100, device=references.device) * 7 % len(references)]
    share = torch.linspace(0.5, 2, len(copies), device=references.device)[:, None]
    queries[::100] = torch.nn.functional.normalize(copies + share * queries[::100], dim=1)
    return queries


def check(queries: Any, references: Any, *, sample: int = 2000) -> str:
    """Compare a sample of queries with the plain product in double precision."""
    some = queries[: sample * (len(queries) // sample) : len(queries) // sample]
    found = scan([some], references, CUT)
    best, where, pairs = [], [], 0
    for start in range(0, len(some), 250):
        products = _doubles(some[start : start + 250]) @ _doubles(references).T
        values, indices = products.max(dim=1)
        best, where = [*best, values.cpu()], [*where, indices.cpu()]
        pairs += int((products >= CUT).sum())
    off = float(np.abs(torch.cat(best).numpy() - found.similarities).max())
    same = np.array_equal(torch.cat(where).numpy(), found.nearest) and pairs == found.num_above == len(found.pairs[0])
    if not same or off > 1e-12:
        raise SystemExit(f"not the brute force: nearest off by {off}, {found.num_above} pairs instead of {pairs}")
    return f"equal to the double-precision product for {len(some):,} queries: nearest, {pairs:,} pairs"


def _doubles(rows: Any) -> torch.Tensor:
    return torch.as_tensor(rows).double()


def on_cpu(num_queries: int, num_references: int, dim: int) -> dict[str, Callable[[], object]]:
    """What is timed on the CPU."""
    references = unit(num_references, dim, "cpu", 0)
    queries = planted(num_queries, references)
    q, r = queries.numpy(), references.numpy()
    print(check(q, r))
    buffer = np.empty((512, num_references), np.float32)
    full = torch.empty(num_queries, num_references)

    def bare() -> None:
        for start in range(0, num_queries, 512):
            np.matmul(q[start : start + 512], r.T, out=buffer[: len(q[start : start + 512])])

    def plain_torch() -> object:
        torch.mm(queries, references.T, out=full)
        return full.topk(1, dim=1), (full >= CUT).nonzero()

    rows: dict[str, Callable[[], object]] = {
        "bare product, numpy in blocks": bare,
        "bare product, torch at once": lambda: torch.mm(queries, references.T, out=full),
        "vlm_tune scan: nearest and pairs": lambda: scan([q], r, CUT, device="cpu"),
        "torch.topk and >= on all scores": plain_torch,
    }
    return rows | _faiss(q, r) | _imagededup(q[:WITHIN])


def _faiss(q: np.ndarray, r: np.ndarray) -> dict[str, Callable[[], object]]:
    try:
        import faiss
    except ImportError:
        return {}
    index = faiss.IndexFlatIP(r.shape[1])
    index.add(r)
    return {
        "faiss search: nearest only": lambda: index.search(q, 1),
        "faiss range_search: pairs only": lambda: index.range_search(q, CUT),
        "faiss search and range_search": lambda: (index.search(q, 1), index.range_search(q, CUT)),
    }


def _imagededup(rows: np.ndarray) -> dict[str, Callable[[], object]]:
    ours = {f"vlm_tune above, within {len(rows):,}": lambda: list(above([rows], rows, CUT, within=True, device="cpu"))}
    try:
        from imagededup.methods import CNN
    except ImportError:
        return ours
    names = {str(number): row for number, row in enumerate(rows)}
    quiet = SimpleNamespace(info=lambda *_: None)
    # Its search as it is, without the network that its constructor loads.
    finder = CNN.__new__(CNN)
    finder.logger, finder.verbose = quiet, False
    search = finder._find_duplicates_dict
    return ours | {f"imagededup, within {len(rows):,}": lambda: search(names, CUT, scores=False, num_sim_workers=0)}


def on_gpu(num_queries: int, num_references: int, dim: int) -> dict[str, Callable[[], object]]:
    """What is timed on the GPU; both sets of embeddings are there."""
    references = unit(num_references, dim, "cuda", 0)
    queries = planted(num_queries, references)
    print(check(queries, references))
    halves = queries.half(), references.half()
    buffer = torch.empty(16384, 65536, dtype=torch.half, device="cuda")

    def blocks(use: Callable[[torch.Tensor], object]) -> None:
        for start in range(0, num_queries, 16384):
            part = halves[0][start : start + 16384]
            for begin in range(0, num_references, 65536):
                others = halves[1][begin : begin + 65536]
                use(torch.mm(part, others.T, out=buffer[: len(part), : len(others)]))

    return {
        "bare product, torch in blocks, half": lambda: blocks(lambda scores: None),
        "vlm_tune scan: nearest and pairs": lambda: scan([queries], references, CUT),
        "torch.topk and >= on blocks, half (inexact)": lambda: blocks(
            lambda scores: (scores.topk(1, dim=1), (scores >= CUT).nonzero())
        ),
        "vlm_tune above, within one set": lambda: list(above([references], references, CUT, within=True)),
    }


def main() -> None:
    """Time every row in turn, several times, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--queries", type=int, default=None)
    parser.add_argument("--references", type=int, default=None)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    gpu = arguments.device == "cuda"
    sizes = arguments.queries or (1_000_000 if gpu else 50_000), arguments.references or (1_000_000 if gpu else 10_000)
    rows = (on_gpu if gpu else on_cpu)(*sizes, arguments.dim)
    times: dict[str, list[float]] = {name: [] for name in rows}
    memory: dict[str, list[float]] = {name: [] for name in rows} if gpu else {}
    work: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(arguments.rounds + 1):
        for name, function in rows.items():
            if gpu:
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            started, busy = time.perf_counter(), time.process_time()
            function()
            if gpu:
                torch.cuda.synchronize()
                memory[name].append((torch.cuda.max_memory_allocated() - before) / 1e9)
            if number:
                times[name].append(time.perf_counter() - started)
                work[name].append(time.process_time() - busy)
    report(times, memory or work, sizes, arguments)


def report(
    times: dict[str, list[float]], spent: dict[str, list[float]], sizes: tuple[int, int], arguments: argparse.Namespace
) -> None:
    """Print the table; the first row is the floor."""
    gpu = arguments.device == "cuda"
    machine = torch.cuda.get_device_name() if gpu else f"{torch.get_num_threads()} threads"
    title = f"{sizes[0]:,} x {sizes[1]:,} at d={arguments.dim}, {machine}, torch {torch.__version__}"
    table = Table("", title=title, title_justify="left")
    for column in ("median s", "fastest s", "ratio of medians", "working GB" if gpu else "processor s"):
        table.add_column(column, justify="right")
    floor = statistics.median(times[next(iter(times))])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        extra = max(spent[name]) if gpu else statistics.median(spent[name])
        table.add_row(name, f"{middle:.2f}", f"{min(seconds):.2f}", f"{middle / floor:.2f}", f"{extra:.2f}")
    Console(width=120).print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps({"title": title, "seconds": times, "spent": spent}, indent=2))


if __name__ == "__main__":
    main()
