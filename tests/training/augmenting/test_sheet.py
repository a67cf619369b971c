from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import photo
from vlm_tune.data import Dataset
from vlm_tune.errors import ImageError, TrainingError
from vlm_tune.records import Example
from vlm_tune.training import Augment, LoRATrainer, TrainConfig
from vlm_tune.training.augmenting.sheet import BatchSheet, _picture
from vlm_tune.training.running.photos import Photos
from vlm_tune.training.running.steps import steps_of
from vlm_tune.vlm import VLM

CONFIG = TrainConfig(augment=Augment(crop=(0.6, 1.0), flip=True, mixup=0.4, cutmix=1.0), batch_size=5, seed=3)


def sheet(folder: Path, data: Dataset, config: TrainConfig = CONFIG, **how: int) -> BatchSheet:
    return LoRATrainer(VLM(folder), config).show_batch(data, **how)


def test_it_shows_what_training_will_see(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    shown = sheet(tiny_qwen3_vl, colours, num_examples=7, epoch=1)
    steps = steps_of(CONFIG, [example.label for example in colours])
    steps.epoch = 1
    rows = [row for (step,) in steps for row in step.rows][:7]
    photos = Photos(colours.examples, max_pixels=colours.task.max_pixels)
    assert [one.example_id for one in shown.photos] == [colours.examples[row.index].id for row in rows]
    for one, row in zip(shown.photos, rows, strict=True):
        assert (np.asarray(_picture(one.picture)) == photos.shown(row)).all()
        assert one.answers == {answer.label: answer.share for answer in photos.answers(row)}
        assert sum(one.answers.values()) == pytest.approx(1)
    assert shown.photos != sheet(tiny_qwen3_vl, colours, num_examples=7).photos


def test_it_is_a_result_like_others(
    tiny_qwen3_vl: Path, colours: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = sheet(tiny_qwen3_vl, colours)
    shown.show()
    printed = capsys.readouterr().out
    assert "12 training photos of epoch 0" in printed and " + " in printed
    assert BatchSheet.load(shown.save(tmp_path / "sheet.json")) == shown
    assert len(shown.plot().axes) == 12
    assert "".join(axes.get_title() for axes in shown.plot().axes).count("+") == shown.to_html().count(" + ")
    frame = shown.frame()
    assert frame.groupby("example_id").share.sum().to_numpy() == pytest.approx(1)
    assert set(frame.mixed_by.dropna()) == {"mixup", "cutmix"}


def test_labels_are_no_html(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    assert "<img onerror" not in sheet(tiny_qwen3_vl, _named(colours, "<img onerror=1>")).to_html()


def test_without_changes_it_shows_the_photos_and_alone_nothing_is_mixed(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    plain = sheet(tiny_qwen3_vl, colours, TrainConfig(), num_examples=100)
    assert len(plain.photos) == 24 and plain.augment is None
    assert all(one.other_id is None and not one.changes for one in plain.photos)
    alone = sheet(tiny_qwen3_vl, colours.limit(1).filter(lambda example: example.label == "red"))
    assert [one.answers for one in alone.photos] == [{"red": 1.0}]


def test_large_photos_are_made_small(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    large = [Example(id=label, image=photo(label, 0, width=900, height=600), label=label) for label in ("red", "blue")]
    shown = sheet(tiny_qwen3_vl, Dataset(large, task=colours.task))
    assert {_picture(one.picture).size for one in shown.photos} == {(320, 213)}
    assert all(one.picture.startswith("data:image/jpeg") for one in shown.photos)


def test_what_cannot_be_shown_is_said(tiny_qwen3_vl: Path, colours: Dataset) -> None:
    for how in ({"num_examples": 0}, {"epoch": -1}):
        with pytest.raises(TrainingError, match="num_examples >= 1"):
            sheet(tiny_qwen3_vl, colours, **how)
    torn = [example.model_copy(update={"image": b"torn"}) for example in colours]
    with pytest.raises(ImageError):
        sheet(tiny_qwen3_vl, Dataset(torn, task=colours.task))


def _named(data: Dataset, label: str) -> Dataset:
    task = data.task.model_copy(update={"classes": (label, *data.task.classes[1:])})
    renamed = [e.model_copy(update={"label": label}) if e.label == "red" else e for e in data]
    return Dataset(renamed, task=task)
