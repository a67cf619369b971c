"""A tiny open_clip architecture, for tests that need a real one."""

from __future__ import annotations

import json
from pathlib import Path

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def tiny_clip(folder: Path) -> str:
    """Make the architecture known to open_clip, and return its name."""
    import open_clip

    (folder / "vlm-tune-tiny.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    return "vlm-tune-tiny"
