from pathlib import Path

import pytest
import torch
from transformers import AutoProcessor

from tests.training.conftest import photo
from vlm_tune import images
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError
from vlm_tune.records import Example
from vlm_tune.task import Task
from vlm_tune.training.running.batches import IGNORED, Batches
from vlm_tune.vlm import pixels, prompts


def batches_of(folder: Path, data: Dataset, dtype: torch.dtype = torch.float32) -> Batches:
    return Batches(data.examples, processor=AutoProcessor.from_pretrained(folder), task=data.task, dtype=dtype)


@pytest.fixture
def mixed() -> Dataset:
    """Photos of several sizes, labels of several lengths."""
    task = Task(prompt="Which colour?", classes=("red", "green as the grass in spring", "blue"))
    sizes = [(64, 48), (40, 40), (96, 32), (48, 80)]
    examples = [
        Example(
            id=f"{index}",
            image=photo(("red", "green", "blue")[index % 3], index, width=size[0], height=size[1]),
            label=task.classes[index % 3],
        )
        for index, size in enumerate(sizes)
    ]
    return Dataset(examples, task=task)


def test_the_prompt_is_scorings_and_the_answer_follows(tiny_vlm: Path, mixed: Dataset) -> None:
    batches = batches_of(tiny_vlm, mixed)
    processor = batches.processor
    for index, example in enumerate(mixed):
        image = images.encode(example.image, max_pixels=mixed.task.max_pixels)
        asked = pixels.prepare(processor, [image.data], [prompts.prompt_text(processor, mixed.task)])
        answer = prompts.answer_ids(processor, example.label)
        tokens = batches[index].tokens["input_ids"].tolist()
        assert tokens == asked["input_ids"][0].tolist() + answer
        assert batches[index].num_trained == len(answer)


def test_several_classes_are_trained_as_the_answer_that_names_them(tiny_vlm: Path, mixtures: Dataset) -> None:
    batches = batches_of(tiny_vlm, mixtures)
    tokenizer = batches.processor.tokenizer
    for index, example in enumerate(mixtures):
        tokens = batches[index].tokens["input_ids"][-batches[index].num_trained :].tolist()
        assert tokens == batches.answer(example.label)
        assert tokenizer.decode(tokens[:-1]) == example.label
    assert tokenizer.decode(batches.answer("red, blue")[:-1]) == "red, blue"


def test_only_the_answer_has_labels_and_padding_is_right_and_masked(tiny_vlm: Path, mixed: Dataset) -> None:
    batches = batches_of(tiny_vlm, mixed)
    batch = batches.collate(range(len(mixed)))
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    for row in range(len(mixed)):
        length = len(batches[row].tokens["input_ids"])
        answer = batches.answer(mixed[row].label)
        assert batch["attention_mask"][row].tolist() == [1] * length + [0] * (batch["labels"].shape[1] - length)
        trained = batch["labels"][row] != IGNORED
        assert trained.nonzero().flatten().tolist() == list(range(length - len(answer), length))
        assert batch["labels"][row][trained].tolist() == answer


def test_a_batch_is_its_examples_whatever_else_is_in_it(tiny_vlm: Path, mixed: Dataset) -> None:
    # The processor given several photos at once must agree with photos prepared one at a time.
    batches = batches_of(tiny_vlm, mixed)
    prompt = prompts.prompt_text(batches.processor, mixed.task)
    encoded = [images.encode(example.image, max_pixels=mixed.task.max_pixels).data for example in mixed]
    together = pixels.prepare(batches.processor, encoded, [prompt] * len(mixed), padding_side="right")
    stacked = batches.collate(range(len(mixed)))
    for name, tensor in together.items():
        if tensor.shape != together["input_ids"].shape:
            assert torch.equal(stacked[name], tensor), name


def test_pixels_are_kept_once_in_the_models_type(tiny_vlm: Path, mixed: Dataset) -> None:
    batches = batches_of(tiny_vlm, mixed, torch.bfloat16)
    assert batches.kept_in_memory
    assert batches[0] is batches[0]
    assert batches[0].pixels["pixel_values"].dtype == torch.bfloat16


def test_what_does_not_fit_into_memory_is_made_anew(
    tiny_qwen3_vl: Path, mixed: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlm_tune.training.running.batches.memory_bytes", lambda: 1000)
    batches = batches_of(tiny_qwen3_vl, mixed)
    assert not batches.kept_in_memory
    assert batches[0] is not batches[0]
    assert torch.equal(batches[0].pixels["pixel_values"], batches[0].pixels["pixel_values"])


def test_an_unreadable_photo_is_named(tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    data = [Example(id="x", image=broken, label="red")]
    batches = Batches(
        data,
        processor=AutoProcessor.from_pretrained(tiny_qwen3_vl),
        task=colours.task,
        dtype=torch.float32,
    )
    with pytest.raises(ImageError, match=r"broken\.png"):
        batches[0]
