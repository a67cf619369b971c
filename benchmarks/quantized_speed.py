"""Photos a second and memory of a model in its own type, in eight bits (LLM.int8) and in four (NF4).

    python benchmarks/make_random_checkpoint.py qwen3-vl-8b /tmp/qwen3-vl-8b
    python benchmarks/quantized_speed.py /tmp/qwen3-vl-8b --json /tmp/quantized.json
    python benchmarks/quantized_speed.py /tmp/tiny --images 12 --size 64x48 --device cpu     # does it run?

Each is exported, loaded from its folder, warmed up and timed from JPEG bytes to answers by `vt.compare_exports`. With
random weights the answers mean nothing: the accuracies and the tests beside them only show that the table is whole, and
activations have no outliers as those of trained models do, which LLM.int8 multiplies apart and slower.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from qlora import photos

import vlm_tune as vt
from vlm_tune.versions import hardware


def main() -> None:
    """Export, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=int, default=98)
    parser.add_argument("--size", default="1000x750")
    parser.add_argument("--batch", type=int, default=None, help="photos per batch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--exports", type=Path, default=None, help="where exports go; a temporary folder if left out")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()

    width, height = map(int, asked.size.split("x"))
    base = vt.VLM(asked.checkpoint, device=asked.device, batch_size=asked.batch)
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.exports or Path(temporary)
        models, seconds = [base], {}
        for quantization in ("int8", "nf4"):
            started = time.perf_counter()
            models.append(base.export(folder / quantization, quantization=quantization))
            seconds[quantization] = round(time.perf_counter() - started, 2)
            print(f"exported to {quantization} in {seconds[quantization]} s", flush=True)
        report = vt.compare_exports(models, photos(asked.images, width, height))
    report.show()
    if asked.json:
        about = {"asked": {key: str(value) for key, value in vars(asked).items()}, "on": hardware()}
        row = {**about, "export_s": seconds, "report": report.model_dump(mode="json")}
        asked.json.write_text(json.dumps(row, indent=2))


if __name__ == "__main__":
    main()
