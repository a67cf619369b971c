"""Which adapters go together, and where their base is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vlm_tune as vt
from tests.training.merging.made import TASK, parts
from vlm_tune.errors import MergeError
from vlm_tune.records import Example
from vlm_tune.training.merging.parts import parts_of
from vlm_tune.vlm import VLM


@dataclass
class Trained:
    """As much of an adapter as is asked before it is merged."""

    path: Path
    base: VLM
    source: str
    task: vt.Task = TASK
    name: str = "one"
    fingerprint: str = "ab"
    probe: tuple[Example, ...] = ()

    @property
    def card(self) -> Any:
        return SimpleNamespace(base=SimpleNamespace(source=self.source, model="a model"))


def test_adapters_that_do_not_go_together_are_refused(tiny_qwen3_vl: Path) -> None:
    first, second = (Trained(Path(name), VLM(tiny_qwen3_vl), "sha256:1") for name in ("first", "second"))

    def made(*adapters: Any) -> Any:
        return parts_of(adapters)

    with pytest.raises(MergeError, match="no adapter to merge"):
        made()
    for weight in (0.0, float("nan")):
        with pytest.raises(MergeError, match=f"weight of one is {weight}"):
            made((first, 1.0), (second, weight))
    with pytest.raises(MergeError, match=r"second was trained on a model .sha256:2. and .*first on a model"):
        made((first, 1.0), (replace(second, source="sha256:2"), 1.0))
    with pytest.raises(MergeError, match="different tasks"):
        made((first, 1.0), (replace(second, task=TASK.model_copy(update={"prompt": "And this?"})), 1.0))
    found = {made((first, 1.0), (second, weight)).fingerprint for weight in (1.0, 2.0)}
    assert len(found) == 2
    assert made((first, 1.0)).fingerprint == "ab"


def test_one_adapter_is_itself(tiny_qwen3_vl: Path, tmp_path: Path) -> None:
    assert parts(tiny_qwen3_vl, Path("adapter")).as_one(tmp_path) == Path("adapter")
    assert list(tmp_path.iterdir()) == []


def test_the_quantisation_of_the_base_is_no_other_base(tiny_qwen3_vl: Path) -> None:
    what = parts(tiny_qwen3_vl, Path("adapter"))
    assert replace(what, source=f"{what.source}+nf4").folder() == tiny_qwen3_vl
    with pytest.raises(MergeError, match="not those that the adapter was trained on"):
        replace(what, source="sha256:0123456789abcdef").folder()


def test_a_base_of_the_hub_is_taken_at_the_commit_it_was_trained_on(
    tiny_qwen3_vl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    what = parts(tiny_qwen3_vl, Path("adapter"))
    hub = SimpleNamespace(folder=None, model="org/name", unquantized=lambda: SimpleNamespace(stored_quantization=None))

    def download(model: str, **more: Any) -> str:
        asked.append((model, more["revision"]))
        return str(tiny_qwen3_vl)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert replace(what, base=hub, source="org/name@abc123").folder() == tiny_qwen3_vl
    assert asked == [("org/name", "abc123")]
