import io
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.conftest import COLOURS, photo
from vlm_tune.data import Dataset
from vlm_tune.errors import TrainingError
from vlm_tune.records import Example
from vlm_tune.training import LoRATrainer, TrainConfig
from vlm_tune.training.gate import _chance_limit, _swap, balanced
from vlm_tune.vlm import VLM

CONFIG = TrainConfig(r=8, lora_alpha=32, learning_rate=1e-2)


def test_ten_examples_are_learnt_by_heart_and_the_base_is_not(bold_vlm: Path, colours: Dataset) -> None:
    base = VLM(bold_vlm)
    model = base.load().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = LoRATrainer(base, CONFIG).overfit(colours)
    report.raise_if_failed()
    assert report.num_examples == 10
    assert report.num_correct == report.num_swapped_correct == 10
    assert report.num_blank_correct <= 4
    assert report.final_loss < 0.05
    assert report.num_steps == len(report.losses) <= 100
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_loss_that_is_smoothed_and_weighted_does_not_keep_the_gate_shut(
    bold_qwen3_vl: Path, colours: Dataset
) -> None:
    settings = {"label_smoothing": 0.3, "class_weights": {"red": 20.0}, "sampling": "balanced", "patience": 1}
    config = CONFIG.model_copy(update={**settings, "keep": "best", "report_to": ("wandb",)})
    report = LoRATrainer(VLM(bold_qwen3_vl), config).overfit(colours)
    report.raise_if_failed()
    assert report.num_steps < 100


def test_ten_lists_of_classes_are_learnt_by_heart(bold_qwen3_vl: Path, mixtures: Dataset) -> None:
    few = Dataset([one for one in mixtures if "blue" not in one.label], task=mixtures.task)
    report = LoRATrainer(VLM(bold_qwen3_vl), CONFIG).overfit(few)
    report.raise_if_failed()
    labels = {example_id.partition("/")[0] for example_id in report.example_ids}
    assert labels == {"none", "red", "green", "red, green"}
    assert report.num_correct == report.num_swapped_correct == 10
    assert report.num_blank_correct <= report.blank_limit


def test_more_classes_than_can_be_scored_pass_the_gate_too(bold_qwen3_vl: Path, mixtures: Dataset) -> None:
    task = mixtures.task.model_copy(update={"classes": (*mixtures.task.classes, *"abcdefgh")})
    data = Dataset(mixtures.examples, task=task)
    report = LoRATrainer(VLM(bold_qwen3_vl, answer="generate"), CONFIG).overfit(data, num_examples=4)
    assert report.num_correct == 4
    assert report.final_loss < 0.05


def test_too_few_steps_fail_by_the_loss(bold_qwen3_vl: Path, colours: Dataset) -> None:
    report = LoRATrainer(VLM(bold_qwen3_vl), CONFIG).overfit(colours, max_steps=2)
    failed = {check.name for check in report.checks if not check.passed}
    assert "loss" in failed
    assert report.num_steps == 2


def grey(value: int, width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height), value).save(buffer, "PNG")
    return buffer.getvalue()


def test_classes_that_differ_by_size_are_caught_on_blanks(bold_qwen3_vl: Path, colours: Dataset) -> None:
    sizes = {"red": (64, 64), "green": (96, 32), "blue": (32, 96)}
    examples = [
        # All photos are as good as blank: only their proportions tell the classes apart.
        Example(id=f"{label}/{index}", image=grey(128 + index, width, height), label=label)
        for label, (width, height) in sizes.items()
        for index in range(4)
    ]
    report = LoRATrainer(VLM(bold_qwen3_vl), CONFIG).overfit(Dataset(examples, task=colours.task))
    failed = {check.name for check in report.checks if not check.passed}
    assert failed == {"blanks"}
    assert report.num_blank_correct > report.blank_limit


def test_contradicting_labels_cannot_be_learnt(bold_qwen3_vl: Path, colours: Dataset) -> None:
    base = Example(id="x", image=photo("red", 0), label="red")
    examples = []
    for index in range(6):
        # The same pixels in another file, so that the bytes differ.
        other = photo("red", 0)[:-12] + b"\0\0\0\4tEXt" + b"ab\0" + bytes([65 + index]) + b"\0" * 4
        examples.append(base.model_copy(update={"id": f"{index}", "label": COLOURS[index % 2], "image": other}))
    report = LoRATrainer(VLM(bold_qwen3_vl), CONFIG).overfit(Dataset(examples, task=colours.task), max_steps=30)
    assert {"loss", "answers"} <= {check.name for check in report.checks if not check.passed}


def test_fewer_examples_than_asked_for_are_all_used(bold_qwen3_vl: Path, colours: Dataset) -> None:
    few = Dataset([colours[0], colours[1], colours[3]], task=colours.task)
    report = LoRATrainer(VLM(bold_qwen3_vl), CONFIG).overfit(few, max_steps=1)
    assert report.num_examples == 3


@pytest.mark.parametrize(("num_examples", "max_steps"), [(1, 10), (0, 10), (10, 0)])
def test_impossible_gates_are_refused(tiny_qwen3_vl: Path, colours: Dataset, num_examples: int, max_steps: int) -> None:
    with pytest.raises(TrainingError):
        LoRATrainer(VLM(tiny_qwen3_vl), CONFIG).overfit(colours, num_examples=num_examples, max_steps=max_steps)


def examples_of(**counts: int) -> list[Example]:
    return [
        Example(id=f"{label}{index}", image=f"{label}{index}".encode(), label=label)
        for label, count in counts.items()
        for index in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "n", "expected"),
    [
        ({"a": 50, "b": 50, "c": 50}, 10, [3, 3, 4]),
        ({"a": 50, "b": 2, "c": 50}, 10, [2, 4, 4]),
        ({"a": 1, "b": 1}, 10, [1, 1]),
        ({"a": 99, "b": 1}, 10, [1, 9]),
        ({chr(97 + index): 5 for index in range(20)}, 10, [1] * 10),
    ],
)
def test_classes_are_as_even_as_they_can_be(counts: dict[str, int], n: int, expected: list[int]) -> None:
    chosen = balanced(examples_of(**counts), n, seed=0)
    assert sorted(Counter(example.label for example in chosen).values()) == expected
    assert len({example.id for example in chosen}) == len(chosen)
    assert chosen == balanced(examples_of(**counts), n, seed=0)


def test_no_photo_is_chosen_twice() -> None:
    copies = [Example(id=f"{index}", image=b"same", label="ab"[index % 2]) for index in range(6)]
    assert len(balanced(copies, 4, seed=0)) == 1


@pytest.mark.parametrize("truth", [[0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [0, 1], [0, 1, 0, 1, 2]])
def test_swapping_moves_every_photo_to_another_class(truth: list[int]) -> None:
    order = _swap(truth)
    assert sorted(order) == list(range(len(truth)))
    assert all(truth[place] != truth[taken] for place, taken in enumerate(order))


def test_chance_on_blanks() -> None:
    assert _chance_limit([0, 0, 0, 1, 1, 1, 2, 2, 2, 2]) == 7
    assert _chance_limit(list(range(10))) == 3
    assert 4 <= _chance_limit([0, 0, 1, 1]) <= 4
