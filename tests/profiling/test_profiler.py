from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.profiling.conftest import HOSTILE, TASK
from vlm_tune.data import Dataset
from vlm_tune.families import FAMILIES
from vlm_tune.images import blank, encode
from vlm_tune.profiling import Profile, Quantiles, profile
from vlm_tune.records import Example
from vlm_tune.task import Task


class TestCounts:
    def test_each_split_and_class(self, result: Profile, dataset: Dataset) -> None:
        assert result.dataset_fingerprint == dataset.fingerprint
        assert (result.num_examples, result.num_groups) == (23, 5)
        assert result.sizes == {"train": 18, "test": 2, "all": 23}
        assert result.counts == {
            "train": {"crack": 14, "dent": 4, "[b]$none$[/b]": 0},
            "test": {"crack": 1, "dent": 1, "[b]$none$[/b]": 0},
            "all": {"crack": 17, "dent": 6, "[b]$none$[/b]": 0},
        }
        assert result.imbalance == pytest.approx(17 / 6)

    def test_a_photo_with_several_classes_counts_for_each(self, odd: Dataset) -> None:
        found = profile(odd, duplicates=False)
        assert found.counts["all"] == {HOSTILE: 8, "dent": 12, "<i>scratch</i>": 8, "none": 4}
        assert found.sizes["all"] == 24
        assert {sample.label for sample in found.samples} == set(found.counts["all"])
        assert found.frame()["all"].tolist() == [8, 12, 8, 4]
        assert isinstance(found.plot(), Figure)

    def test_the_same_twice(self, result: Profile, dataset: Dataset) -> None:
        assert profile(dataset) == result


class TestPhotos:
    def test_sizes_are_those_of_the_readable_photos(self, result: Profile) -> None:
        assert result.width is not None
        assert (result.width.minimum, result.width.median, result.width.maximum) == (20, 40, 60)
        assert result.height is not None
        assert result.height.maximum == 100
        assert result.formats == {"PNG": 16, "JPEG": 4}
        assert result.num_shrunk == 7

    def test_tags_in_the_datasets_order(self, result: Profile) -> None:
        assert result.tags["unreadable"] == ("empty.jpg", "torn.jpg", "gone.jpg")
        assert result.tags["duplicate"] == result.tags["conflict"] == ("04.png", "07.png")
        assert result.tags["ambiguous"] == ("torn.jpg",)
        assert result.tags["odd_shape"][:2] == ("02.png", "05.png")
        assert [group.ids for group in result.conflicts] == [("04.png", "07.png")]

    def test_copies_are_not_looked_for_unless_asked(self, dataset: Dataset) -> None:
        found = profile(dataset, duplicates=False)
        assert found.copies is None
        assert found.tags["duplicate"] == ()

    def test_votes_come_from_the_metadata(self) -> None:
        votes = [{"vote_share": 0.75, "vote_margin": "0.5"}, {"vote_share": ""}, {}, {"vote_share": "many"}]
        examples = [
            Example(id=f"{n}", image=blank(8 + n, 8), label=TASK.classes[n % 2], metadata=each)
            for n, each in enumerate(votes)
        ]
        found = profile(Dataset(examples, task=TASK), duplicates=False)
        assert found.photos.vote_share == (0.75, None, None, None)
        assert found.photos.vote_margin == (0.5, None, None, None)

    def test_samples_are_readable_and_few(self, result: Profile) -> None:
        labels = [sample.label for sample in result.samples]
        assert (labels.count("crack"), labels.count("dent")) == (6, 5)
        assert not {sample.example_id for sample in result.samples} & set(result.tags["unreadable"])
        assert all(sample.thumbnail.startswith("data:image/jpeg;base64,") for sample in result.samples)


class TestImageTokens:
    def test_are_those_of_the_encoded_photo(self) -> None:
        task = Task(prompt="?", classes=("a", "b"), max_pixels=500_000)
        sizes = ((1500, 1200), (300, 200), (4000, 15))
        examples = [Example(id=f"{n}", image=blank(*size), label="ab"[n % 2]) for n, size in enumerate(sizes)]
        found = profile(Dataset(examples, task=task), duplicates=False)
        # 1500 x 1200 is sent as 790 x 632: 25 x 20 patches of 32 pixels; 300 x 200 is enlarged to 10 x 7.
        assert encode(examples[0].image, max_pixels=task.max_pixels).width == 790
        assert found.photos.tokens["qwen3_vl"] == (500, 70, None)
        assert found.image_tokens["qwen3_vl"].total == 570
        assert found.image_tokens["qwen3_vl"].num_refused == 1
        assert found.image_tokens["lfm2_vl"].num_refused == 0

    def test_count_the_photo_as_it_is_sent(self) -> None:
        task = Task(prompt="?", classes=("a", "b"), max_pixels=300_000)
        sizes = ((500, 400), (600, 501), (333, 1777), (2000, 1999), (1, 900), (3001, 117))
        examples = [Example(id=f"{n}", image=blank(*size), label="ab"[n % 2]) for n, size in enumerate(sizes)]
        found = profile(Dataset(examples, task=task), duplicates=False)
        assert set(found.photos.tokens) == {name for name, family in FAMILIES.items() if family.grid}
        assert "smolvlm" not in found.photos.tokens
        for name in found.photos.tokens:
            family = FAMILIES[name]
            sent = [encode(example.image, max_pixels=task.max_pixels) for example in examples]
            assert found.photos.tokens[name] == tuple(family.image_tokens(each.width, each.height) for each in sent)


class TestBadInput:
    def test_nothing_readable_at_all(self, tmp_path: Path) -> None:
        examples = [Example(id=f"{n}", image=b"", label=TASK.classes[n % 2]) for n in range(4)]
        dataset = Dataset(examples, task=TASK)
        empty = profile(dataset)
        assert (empty.width, empty.height, empty.formats, len(empty.unreadable)) == (None, None, {}, 4)
        assert (empty.copies, empty.samples) == ((), ())
        empty.show()
        assert isinstance(empty.plot(), Figure)
        assert Profile.load(empty.save(tmp_path / "p.json")) == empty
        assert empty.browse(dataset, tmp_path / "p.html").exists()

    def test_one_photo(self, dataset: Dataset, tmp_path: Path) -> None:
        one = dataset.filter(lambda example: example.id == "05.png")
        found = profile(one)
        assert (found.num_examples, found.imbalance, found.copies) == (1, 1, ())
        found.show()
        assert isinstance(found.plot(), Figure)
        assert found.browse(one, tmp_path / "p.html").exists()

    def test_a_hundred_thousand_identical_photos(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        image = blank(16, 16)
        task = Task(prompt="?", classes=("a", "b"))
        examples = [Example(id=f"{n:06}", image=image, label="ab"[n % 2]) for n in range(100_000)]
        dataset = Dataset(examples, task=task)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = profile(dataset)
        # Columns and ids, and no pixels: about two kilobytes for each photo, in kilobytes.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000
        assert found.copies is not None
        assert [len(group.ids) for group in found.copies] == [100_000]
        assert len(found.tags["conflict"]) == 100_000
        found.show()
        shown = capsys.readouterr().out
        assert "100,000 photos in one group (1 identical)" in " ".join(shown.split())
        assert shown.count("\n") < 60
        found.browse(dataset, tmp_path / "p.html")
        assert len(list((tmp_path / "p_files").rglob("*.jpg"))) == 1


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
    assert result.tags["unreadable"] == ("mixed_images/ukbench09268_corrupt.jpg",)
    assert result.width is not None
    assert result.width.median == 640
    assert result.copies
    assert result.conflicts


@pytest.mark.data
def test_few_real_photos_deserve_a_look(test_data: Path) -> None:
    files = (
        sorted((test_data / "neu_det").rglob("*.jpg"))[::5] + sorted((test_data / "grocery_small").rglob("*.jpg"))[::5]
    )
    examples = [Example(id=f"{n}", image=file, label="ab"[n % 2]) for n, file in enumerate(files)]
    found = profile(Dataset(examples, task=Task(prompt="?", classes=("a", "b"))), duplicates=False)
    shares = {tag: len(ids) / len(files) for tag, ids in found.tags.items()}
    assert np.max(list(shares.values())) < 0.05
    assert found.tags["unreadable"] == ()
