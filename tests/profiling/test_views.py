from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vlm_tune.data import Dataset
from vlm_tune.images import blank
from vlm_tune.profiling import Profile, profile
from vlm_tune.records import Example
from vlm_tune.task import Task


def shown(profile: Profile, capsys: pytest.CaptureFixture[str]) -> str:
    profile.show()
    return " ".join(capsys.readouterr().out.split())


def test_show_says_what_there_is_and_what_deserves_a_look(result: Profile, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(result, capsys)
    for words in (
        "23 photos", "[b]$none$[/b]", "2.8 times", "torn.jpg", "16 PNG, 4 JPEG", "7, shrunk", "tokens of Qwen3-VL",
        "2 photos in one group (1 identical)", "odd shape", "copies with different labels", "04.png, 07.png",
    ):  # fmt: skip
        assert words in text


def test_a_hundred_classes_stay_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    task = Task(prompt="?", classes=tuple(f"class {n:03}" for n in range(100)))
    examples = [
        Example(id=f"{n}", image=blank(8, 8), label=task.classes[n % 100 % (n // 100 + 1)]) for n in range(4000)
    ]
    found = profile(Dataset(examples, task=task), duplicates=False)
    found.show()
    text = capsys.readouterr().out
    assert text.count("\n") < 70
    assert "… 70 more …" in text
    assert "class 000" in text
    assert "not looked for" in text
    drawn = found.plot()
    (axes,) = drawn.axes
    assert len(axes.get_yticklabels()) == 100


def test_plot_draws_every_class_and_count(result: Profile) -> None:
    drawn = result.plot()
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    (axes,) = drawn.axes
    assert isinstance(drawn, Figure)
    assert len(axes.get_yticklabels()) == 3
    assert [text.get_text().strip() for text in axes.texts] == ["17", "6", "0"]
    legend = axes.get_legend()
    assert legend is not None
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["train n = 18", "test n = 2", "no split n = 3"]
    with Image.open(buffer) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert ((pixels[..., 0] > 150) & (pixels[..., 1] < 110)).mean() > 0.02


def test_tiny_photos_fill_their_place() -> None:
    task = Task(prompt="?", classes=("a", "b"))
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    examples = [Example(id=f"{n}", image=file.getvalue(), label="ab"[n % 2]) for n in range(12)]
    drawn = profile(Dataset(examples, task=task), duplicates=False).plot()
    (picture,) = drawn.axes[0].images
    pixels = np.asarray(picture.get_array())
    assert (pixels[..., 1] < 100).mean() > 0.75


def test_pyplot_is_left_alone(result: Profile) -> None:
    import matplotlib._pylab_helpers

    result.plot()
    assert not matplotlib._pylab_helpers.Gcf.figs
