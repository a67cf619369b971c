from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from vlm_tune.data import Dataset
from vlm_tune.errors import StorageError
from vlm_tune.profiling import Profile, Quantiles, profile
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="?", classes=("crack", "dent", "[b]$none$[/b]"), max_pixels=2_500)
SIZES = ((40, 30), (60, 50), (20, 100))


def photo(width: int, height: int, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 10, 10)).save(file, format)
    return file.getvalue()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    examples = [
        Example(
            id=f"{n:02}.png",
            image=photo(*SIZES[n % 3], "JPEG" if n < 4 else "PNG"),
            label=TASK.classes[n % 4 == 0],
            group=f"g{n // 5}",
        )
        for n in range(20)
    ]
    broken = [
        Example(id="empty.jpg", image=b"", label="dent", group="x"),
        Example(id="torn.jpg", image=photo(60, 50, "JPEG")[:-200], label="crack"),
        Example(id="gone.jpg", image=Path("/nowhere/gone.jpg"), label="crack"),
    ]
    splits = {e.id: "test" if e.id in ("00.png", "01.png") else "train" for e in examples}
    return Dataset([*examples, *broken], task=TASK, splits=splits)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def result(dataset: Dataset) -> Profile:
    return profile(dataset)


class TestProfile:
    def test_counts(self, result: Profile, dataset: Dataset) -> None:
        assert result.dataset_fingerprint == dataset.fingerprint
        assert (result.num_examples, result.num_groups) == (23, 5)
        assert result.counts == {
            "train": {"crack": 14, "dent": 4, "[b]$none$[/b]": 0},
            "test": {"crack": 1, "dent": 1, "[b]$none$[/b]": 0},
            "all": {"crack": 17, "dent": 6, "[b]$none$[/b]": 0},
        }
        assert result.imbalance == pytest.approx(17 / 6)

    def test_sizes_are_those_of_the_readable_photos(self, result: Profile) -> None:
        assert result.width is not None
        assert (result.width.minimum, result.width.median, result.width.maximum) == (20, 40, 60)
        assert result.height is not None
        assert result.height.maximum == 100
        assert result.formats == {"PNG": 16, "JPEG": 4}
        assert result.num_shrunk == 7

    def test_files_that_do_not_decode_are_listed_in_order(self, result: Profile) -> None:
        assert [file.example_id for file in result.unreadable] == ["empty.jpg", "torn.jpg", "gone.jpg"]
        reasons = [file.reason for file in result.unreadable]
        assert "empty" in reasons[0]
        assert "truncated or corrupt" in reasons[1]
        assert "No such file" in reasons[2]

    def test_samples_are_readable_and_few(self, result: Profile) -> None:
        labels = [sample.label for sample in result.samples]
        assert labels.count("crack") == 6
        assert labels.count("dent") == 5
        assert not {sample.example_id for sample in result.samples} & {"empty.jpg", "torn.jpg", "gone.jpg"}
        assert all(sample.thumbnail.startswith("data:image/jpeg;base64,") for sample in result.samples)

    def test_the_same_twice(self, result: Profile, dataset: Dataset) -> None:
        assert profile(dataset) == result

    def test_nothing_readable_at_all(self) -> None:
        examples = [Example(id=f"{n}", image=b"", label=TASK.classes[n % 2]) for n in range(4)]
        empty = profile(Dataset(examples, task=TASK))
        assert (empty.width, empty.height, empty.formats, len(empty.unreadable)) == (None, None, {}, 4)
        empty.show()
        assert isinstance(empty.plot(), Figure)

    def test_leaving_early_does_not_read_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from vlm_tune import images

        read: list[str] = []
        gate = threading.Event()
        decode = images.decode

        def interrupted(data: bytes, *, name: str) -> Image.Image:
            read.append(name)
            if len(read) == 1:
                raise KeyboardInterrupt
            gate.wait(0.05)
            return decode(data, name=name)

        monkeypatch.setattr(images, "decode", interrupted)
        examples = [Example(id=f"{n}", image=photo(8, 8), label=TASK.classes[n % 2]) for n in range(500)]
        with pytest.raises(KeyboardInterrupt):
            profile(Dataset(examples, task=TASK))
        assert len(read) < 100


class TestFace:
    def test_show(self, result: Profile, capsys: pytest.CaptureFixture[str]) -> None:
        result.show()
        shown = capsys.readouterr().out
        for words in ("23 photos", "[b]$none$[/b]", "2.8 times", "torn.jpg", "16 PNG, 4 JPEG", "7, shrunk"):
            assert words in shown

    def test_frame(self, result: Profile) -> None:
        frame = result.frame()
        assert list(frame.columns) == ["train", "test", "all"]
        assert frame.loc["crack"].tolist() == [14, 1, 17]

    def test_plot_draws_every_class_and_count(self, result: Profile) -> None:
        figure = result.plot()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        (axes,) = figure.axes
        assert len(axes.get_yticklabels()) == 3
        assert [text.get_text().strip() for text in axes.texts] == ["17", "6", "0"]
        legend = axes.get_legend()
        assert legend is not None
        names = [text.get_text() for text in legend.get_texts()]
        assert names == ["train n = 18", "test n = 2", "no split n = 3"]
        with Image.open(buffer) as image:
            reddish = (np.asarray(image.convert("RGB")).astype(int) - (200, 10, 10)).max(axis=-1) < 20
        assert reddish.mean() > 0.02

    def test_pyplot_is_left_alone(self, result: Profile) -> None:
        import matplotlib._pylab_helpers

        result.plot()
        assert not matplotlib._pylab_helpers.Gcf.figs

    def test_save_and_load(self, result: Profile, tmp_path: Path) -> None:
        path = result.save(tmp_path / "deep" / "profile.json")
        assert Profile.load(path) == result
        assert Profile.load(path).plot().axes

    def test_load_refuses_what_is_no_profile(self, result: Profile, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text(json.dumps({"num_examples": -1}))
        with pytest.raises(StorageError, match="holds no profile"):
            Profile.load(tmp_path / "p.json")
        with pytest.raises(StorageError, match="does not exist"):
            Profile.load(tmp_path / "q.json")


def test_quantiles_interpolate() -> None:
    quantiles = Quantiles.of(list(range(101)))
    assert quantiles == Quantiles(minimum=0, low=5, median=50, high=95, maximum=100)


@pytest.mark.data
def test_real_photos_with_a_corrupt_one(test_data: Path) -> None:
    folder = test_data / "near_duplicates"
    files = sorted([*(folder / "base_images").glob("*.jpg"), *(folder / "mixed_images").glob("*.jpg")])
    task = Task(prompt="?", classes=("base_images", "mixed_images"))
    examples = [Example(id=f"{f.parent.name}/{f.name}", image=f, label=f.parent.name) for f in files]
    result = profile(Dataset(examples, task=task))
    assert [file.example_id for file in result.unreadable] == ["mixed_images/ukbench09268_corrupt.jpg"]
    assert result.width is not None
    assert result.width.median == 640
