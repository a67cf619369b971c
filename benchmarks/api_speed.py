"""How fast the online client is: waiting for the server hidden by concurrency, and its own work per call.

    python benchmarks/api_speed.py [--examples 98] [--latency 0.5] [--calls 1000]

A fake Gemini in a process of its own takes half a second an answer; 98 photos are asked about with 16 calls at a time,
answers journalled. Then the server answers at once, and the processor time of this process is taken for as many calls
through the bare google-genai client, 16 at a time too, and through ours: the difference is what retries, limits, the
ledger, parsing and the journal add. Preparing the photo is measured alone; every predictor does that, API or not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

import numpy as np
from google import genai
from google.genai import types
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlm_tune as vt
from vlm_tune import images
from vlm_tune.predictors import GeminiOptions
from vlm_tune.testing import FakeGeminiServer

CLASSES = ("crack", "dent", "scratch")
TASK = vt.Task(prompt="What kind of damage does this photo show?", classes=CLASSES)
CONCURRENCY = 16
MODEL = "gemini-3-flash-preview"


def draw(num_examples: int, size: tuple[int, int]) -> vt.Dataset:
    """Return JPEG photos of smooth noise, no two the same, kept in memory."""
    rng = np.random.default_rng(0)
    examples = []
    for number in range(num_examples):
        rough = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        rough.resize(size).save(buffer, "JPEG", quality=90)
        examples.append(vt.Example(id=f"{number}.jpg", image=buffer.getvalue(), label=CLASSES[number % 3]))
    return vt.Dataset(examples, task=TASK)


@contextlib.contextmanager
def server(latency_s: float) -> Iterator[str]:
    """Run a fake Gemini in another process and give its address."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(latency_s)], stdout=-1, stdin=-1, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.communicate("")


def serve(latency_s: float) -> None:
    with FakeGeminiServer("dent", latency_s=latency_s) as fake:
        print(fake.url, flush=True)
        sys.stdin.read()


def ours(url: str, data: vt.Dataset) -> tuple[float, float]:
    """Return wall and processor seconds of an evaluation with a run folder."""
    predictor = vt.Gemini(MODEL, api_key="a-key", base_url=url, options=GeminiOptions(concurrency=CONCURRENCY))
    with tempfile.TemporaryDirectory() as folder:
        wall, used = time.perf_counter(), time.process_time()
        done = vt.Evaluator(data, run_dir=folder).run(predictor)
        wall, used = time.perf_counter() - wall, time.process_time() - used
    if done.outcomes["answered"] != len(data):
        raise SystemExit(f"not every call was answered: {done.outcomes}")
    return wall, used


def bare(url: str, photos: Sequence[images.EncodedImage]) -> tuple[float, float]:
    """Return the same for the client that we stand on, asked the same with the same photos."""
    client = genai.Client(api_key="a-key", http_options=types.HttpOptions(base_url=url, api_version="v1beta"))
    schema = {"type": "STRING", "enum": list(CLASSES)}
    config = types.GenerateContentConfig(
        temperature=0.0, seed=0, response_mime_type="text/x.enum", response_schema=schema
    )

    async def ask_all() -> None:
        places = asyncio.Semaphore(CONCURRENCY)

        async def ask(photo: images.EncodedImage) -> None:
            async with places:
                part = types.Part.from_bytes(data=photo.data, mime_type=photo.mime)
                contents = [types.Content(role="user", parts=[part, types.Part(text=TASK.render())])]
                await client.aio.models.generate_content(model=MODEL, contents=contents, config=config)  # type: ignore[arg-type]

        await asyncio.gather(*map(ask, photos))
        await client.aio.aclose()

    wall, used = time.perf_counter(), time.process_time()
    asyncio.run(ask_all())
    return time.perf_counter() - wall, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=98)
    parser.add_argument("--latency", type=float, default=0.5)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve is not None:
        serve(arguments.serve)
        return
    data = draw(arguments.calls, tuple(arguments.size))
    few = vt.Dataset(data[: arguments.examples], task=TASK)
    with server(arguments.latency) as url:
        wall, _ = ours(url, few)
    used = time.process_time()
    photos = [images.encode(example.image, max_pixels=TASK.max_pixels) for example in data]
    preparing = time.process_time() - used
    with server(0.0) as url:
        bare(url, photos[:50])
        _, theirs = bare(url, photos)
        _, mine = ours(url, data)
    table = Table(title=f"{arguments.examples} photos, {CONCURRENCY} calls at a time; then {arguments.calls} calls")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row(f"{arguments.examples} photos at {arguments.latency:g} s an answer", f"{wall:.2f} s")
    per_call = {
        "processor time a call, bare google-genai": theirs,
        "processor time a call, ours, photo prepared": mine,
        "of it preparing the photo": preparing,
        "own overhead a call": mine - theirs - preparing,
    }
    for name, seconds in per_call.items():
        table.add_row(name, f"{1000 * seconds / arguments.calls:.2f} ms")
    Console().print(table)


if __name__ == "__main__":
    main()
