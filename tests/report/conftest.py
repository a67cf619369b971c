"""What the report tests share: systems, photos, a finished training, and a reader of pages."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vlm_tune.data import Dataset
from vlm_tune.evaluation import Evaluation, Evaluator
from vlm_tune.records import Prediction
from vlm_tune.statistics import wilson
from vlm_tune.testing import ScriptedPredictor, tiny_dataset
from vlm_tune.training import (
    Adapter,
    AdapterCard,
    AdapterPlan,
    MergeReport,
    OverfitReport,
    TrainConfig,
    TrainingLog,
)
from vlm_tune.training.adapter import BaseIdentity
from vlm_tune.training.log import ValidationResult
from vlm_tune.training.overfit import GateCheck
from vlm_tune.training.planning.estimate import Estimates
from vlm_tune.training.planning.gpus import GpuTable
from vlm_tune.training.planning.memory import Layout
from vlm_tune.training.planning.plan import PlanRow
from vlm_tune.training.proving.audit import TokenAudit, TokenSpan
from vlm_tune.training.proving.movement import Movement

CLASSES = ("crack", "dent", "scratch")


@dataclass
class Page(HTMLParser):
    """The elements of a page, as a browser would find them."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    words: str = ""
    _inside: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        # Data for the script is no script: no policy has to allow it.
        self._inside = "data" if ("type", "application/json") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("style", "script", "data"):
            self.texts[self._inside] = self.texts.get(self._inside, "") + data
        else:
            self.words += data

    @property
    def examples(self) -> dict[str, Any]:
        """What the script shows of the examples."""
        found: dict[str, Any] = json.loads(self.texts["data"])
        return found

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [found for _, found in self.elements if name in (found.get("class") or "").split()]


@pytest.fixture
def read() -> Callable[[Path], Page]:
    """Return a function that reads a page as a browser would."""

    def reader(path: Path) -> Page:
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        page.words = " ".join(page.words.split())
        return page

    return reader


@pytest.fixture
def damage() -> tuple[Evaluation, Evaluation, Evaluation]:
    """Base, rival and tuned on 98 photos; tuned against rival: 10 wins, 4 losses, 77 both right."""
    ids = [f"test/{at:03d}.jpg" for at in range(98)]
    right = {"base": ids[:53], "rival": [*ids[10:87], *ids[87:91]], "tuned": ids[:87]}
    truth = {key: CLASSES[at % 3] for at, key in enumerate(ids)}
    next_class = dict(zip(CLASSES, CLASSES[1:] + CLASSES[:1], strict=True))

    def evaluation(name: str, known: Sequence[str]) -> Evaluation:
        answers = {key: label if key in known else next_class[label] for key, label in truth.items()}
        return Evaluation.from_answers(name, truth=truth, answers=answers, classes=CLASSES)

    base, rival, tuned = (evaluation(name, known) for name, known in right.items())
    return base, rival, tuned


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    """Coloured squares on disk, in a folder whose name is nobody's business."""
    return tiny_dataset(12, root=tmp_path / "private" / "photos")


@pytest.fixture
def seen(photos: Dataset) -> tuple[Evaluation, Evaluation]:
    """One that sees only red and once says something else, and one that is always right and says how sure."""

    def sure(label: str) -> dict[str, float]:
        return {name: math.log(0.9 if name == label else 0.05) for name in photos.labels}

    seer = ScriptedPredictor(lambda one: "purple?" if one.id == photos.test[0].id else "red", name="seer")
    oracle = ScriptedPredictor(
        lambda one: Prediction(example_id=one.id, outcome="answered", label=one.label, scores=sure(one.label)),
        name="oracle",
    )
    evaluator = Evaluator(photos.test)
    return evaluator.run(seer), evaluator.run(oracle)


@pytest.fixture
def trained(photos: Dataset, tmp_path: Path) -> list[object]:
    """What a training leaves behind: plan, overfit gate (one check failed), adapter and merge."""
    row = PlanRow(region="vision", kind="attention", hit=54, total=54, parameters=5_400_000, share=0.0006)
    plan = AdapterPlan(
        model=str(tmp_path / "private" / "model"),
        family="qwen3_vl",
        rows=(row, PlanRow(region="language", kind="mlp", hit=0, total=108, parameters=0, share=0.0)),
        target_modules=".*",
        r=64,
        scale=0.25,
        method="LoRA r 64, scale alpha / r = 16 / 64 = 0.25",
        trained_parameters=5_400_000,
        total_parameters=8_767_000_000,
        num_examples=319,
        tokens_per_example=828,
        estimates=Estimates(
            device="NVIDIA H200",
            layout=Layout(micro_batch_size=4, checkpointed=0.0),
            memory_gb=52.1,
            weights_gb=17.5,
            photos_gb=0.5,
            overhead_gb=0.1,
            adapter_gb=1.0,
            activations_gb=33.0,
            device_gb=141.0,
            tflop_per_example=50.0,
            seconds=330.0,
            preparation_s=2.0,
            steps=240,
        ),
        gpus=GpuTable(rows=()),
    )
    hint = "look for images that get mixed up"
    overfit = OverfitReport(
        num_examples=10,
        example_ids=tuple(map(str, range(10))),
        num_steps=63,
        losses=(1.0, 0.1),
        final_loss=0.0004,
        num_correct=10,
        num_swapped_correct=3,
        num_blank_correct=4,
        blank_limit=6,
        checks=(
            GateCheck(name="loss", passed=True, detail="0.0004 after 63 steps", hint="raise the learning rate"),
            GateCheck(name="swapped", passed=False, detail="3 of 10 keep their answer", hint=hint),
        ),
        seconds=21.0,
    )
    merge = MergeReport(
        changed=("model.language_model.layers.0.self_attn.q_proj",),
        tensors_changed=252,
        tensors_untouched=498,
        untouched_sha256="cd" * 32,
        max_ulps=0.5,
        retained_delta=0.9987,
        least_retained_delta=0.97,
        least_retained_module="model.language_model.layers.0.self_attn.q_proj",
        agreement=wilson(24, 24),
        base_agreement=wilson(11, 24),
        max_score_difference=0.012,
        answers=(),
        task=photos.task,
        size_bytes=17_534_000_000,
        write_s=11.0,
        prove_s=58.0,
        seconds=71.0,
        adapter_fingerprint="ab" * 8,
    )
    return [plan, overfit, _adapter(photos, tmp_path), merge]


def _adapter(photos: Dataset, folder: Path) -> Adapter:
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    log = TrainingLog(
        losses=(1.1, 0.6, 0.2, 0.05),
        learning_rates=(1e-4,) * 4,
        validation=(
            ValidationResult(step=2, loss=0.5, accuracy=wilson(31, 40)),
            ValidationResult(step=4, loss=0.3, accuracy=wilson(36, 40)),
        ),
        kept_step=4,
        movement=(Movement(region="vision", num_layers=54, mean=0.0021, least=0.0004),),
        num_examples=319,
        epochs=3,
        seconds=492.0,
        trained_parameters=5_400_000,
        total_parameters=8_767_000_000,
        audit=TokenAudit(
            examples=6,
            trained_text={"dent": "dent<|im_end|>"},
            trained_tokens=18,
            total_tokens=4968,
            image_tokens=4278,
            example_id="dent/7.jpg",
            spans=(
                TokenSpan(kind="masked", text="<|im_start|>user\n<|vision_start|>", num_tokens=4),
                TokenSpan(kind="image", text="<image x 713>", num_tokens=713),
                TokenSpan(
                    kind="masked", text="<|vision_end|>What is it?<|im_end|>\n<|im_start|>assistant\n", num_tokens=9
                ),
                TokenSpan(kind="trained", text="dent<|im_end|>", num_tokens=2),
            ),
        ),
    )
    base = BaseIdentity(model=str(folder / "private" / "model"), revision=None, dtype="auto", source="a folder")
    card = AdapterCard(
        name="tuned",
        inputs="abc",
        base=base,
        task=photos.task,
        config=TrainConfig(),
        training=log,
        packages={},
    )
    handle = SimpleNamespace(fingerprint="f" * 16)
    return Adapter(folder, card, base=handle)  # type: ignore[arg-type]
