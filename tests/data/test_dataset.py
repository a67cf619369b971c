from __future__ import annotations

import pickle
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlm_tune.data import Dataset
from vlm_tune.errors import DataError, SplitError, UnknownLabelError
from vlm_tune.records import Example
from vlm_tune.task import Task

TASK = Task(prompt="What damage is it?", classes=("crack", "dent", "scratch"), aliases={"dent": ("Delle",)})


def some(count: int = 60, **changes: object) -> list[Example]:
    labels = TASK.classes
    return [Example(id=f"{n:03}.jpg", image=b"%d" % n, label=labels[n % 3], **changes) for n in range(count)]


DAMAGE = Task(prompt="What is damaged?", classes=("crack", "dent", "scratch"), multi_label=True)


def damaged(count: int) -> Dataset:
    """Photos of which every 3rd shows a crack, every 2nd a dent, every 7th a scratch, and some nothing."""
    steps = {"crack": 3, "dent": 2, "scratch": 7}
    labels = [DAMAGE.join(label for label, step in steps.items() if n % step == 0) for n in range(count)]
    return Dataset([Example(id=f"{n:03}", image=b"", label=label) for n, label in enumerate(labels)], task=DAMAGE)


def data(count: int = 60) -> Dataset:
    return Dataset(some(count), task=TASK)


class TestSequence:
    def test_it_is_one(self) -> None:
        dataset = data(6)
        assert len(dataset) == 6
        assert [example.id for example in dataset] == list(dataset.ids)
        assert dataset[-1].id == "005.jpg"
        assert dataset[1:3] == dataset.examples[1:3]
        assert dataset[2] in dataset
        assert dataset.labels == TASK.classes * 2
        assert dataset.by_id("003.jpg") is dataset[3]

    def test_an_unknown_id_lists_the_nearest(self) -> None:
        with pytest.raises(DataError, match=r"'03\.jpg'; did you mean"):
            data().by_id("03.jpg")

    def test_it_cannot_be_changed(self) -> None:
        dataset = data().split()
        for name in ("examples", "splits", "task", "train"):
            with pytest.raises(AttributeError):
                setattr(dataset, name, ())
        with pytest.raises(TypeError):
            dataset.splits["000.jpg"] = "test"  # type: ignore[index]

    def test_it_travels_to_other_processes(self) -> None:
        dataset = data().split()
        copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301
        assert copy.fingerprint == dataset.fingerprint
        assert copy.splits == dataset.splits

    def test_it_says_what_it_is(self) -> None:
        assert repr(data()) == "Dataset(60 examples, 3 classes)"
        assert repr(data().split(validation=0.25)) == (
            "Dataset(60 examples, 3 classes, train 30, validation 15, test 15)"
        )


class TestConstruction:
    def test_an_alias_becomes_its_class(self) -> None:
        examples = [Example(id="1", image=b"", label="Delle"), Example(id="2", image=b"", label="crack")]
        assert Dataset(examples, task=TASK).labels == ("dent", "crack")

    @pytest.mark.parametrize("label", ["Dent", " dent", "dents"])
    def test_a_slip_lists_the_nearest(self, label: str) -> None:
        with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
            Dataset([*some(3), Example(id="x", image=b"", label=label)], task=TASK)

    def test_one_class_only(self) -> None:
        with pytest.raises(DataError, match="all 5 examples are labelled 'dent'"):
            Dataset([Example(id=f"{n}", image=b"", label="dent") for n in range(5)], task=TASK)

    def test_duplicates_and_nothing(self) -> None:
        with pytest.raises(DataError, match="occur more than once"):
            Dataset([*some(3), *some(3)], task=TASK)
        with pytest.raises(DataError, match="at least one"):
            Dataset([], task=TASK)

    def test_a_class_that_training_lacks(self) -> None:
        with pytest.raises(DataError, match="test split has classes that training lacks: 'scratch'"):
            Dataset(some(3), task=TASK, splits={"000.jpg": "train", "001.jpg": "train", "002.jpg": "test"})

    def test_no_image_is_opened(self, tmp_path: Path) -> None:
        examples = [e.model_copy(update={"image": tmp_path / "gone.jpg"}) for e in some(9)]
        dataset = Dataset(examples, task=TASK).split()
        assert dataset.fingerprint
        assert len(dataset.frame()) == 9


class TestFingerprint:
    def test_the_order_does_not_matter(self) -> None:
        assert Dataset(some()[::-1], task=TASK).fingerprint == data().fingerprint

    def test_everything_that_counts_changes_it(self) -> None:
        dataset = data()
        others = [
            data(57),
            dataset.relabel({"000.jpg": "scratch"}),
            dataset.with_splits({"000.jpg": "train"}),
            dataset.split(),
            dataset.split(seed=1),
            dataset.with_task(TASK.model_copy(update={"prompt": "Which?"})),
            Dataset(some(group="g"), task=TASK),
        ]
        assert len({dataset.fingerprint, *(other.fingerprint for other in others)}) == 8


class TestSplits:
    def test_parts_hold_their_own_only(self) -> None:
        dataset = data().split(test=0.25, validation=0.1)
        parts = [dataset.train, dataset.validation, dataset.test]
        assert [len(part) for part in parts] == [39, 6, 15]
        assert sorted(i for part in parts for i in part.ids) == sorted(dataset.ids)
        assert dataset.test.has_split("test")
        assert not dataset.test.has_split("train")
        assert dataset.split_of(dataset.test.ids[0]) == "test"
        assert dataset.test.test.ids == dataset.test.ids

    def test_a_split_that_is_not_there_says_what_to_call(self) -> None:
        with pytest.raises(SplitError, match=r"no test split; call split\(test=0\.25\)"):
            data().test
        with pytest.raises(SplitError, match=r"no validation split; call split\(validation=0\.1\)"):
            data().split().validation

    def test_twice_is_once_too_often(self) -> None:
        with pytest.raises(SplitError, match="split already"):
            data().split().split()

    def test_a_part_may_hold_one_class(self) -> None:
        splits = dict.fromkeys(data(9).ids, "train") | {"000.jpg": "test"}
        assert set(Dataset(some(9), task=TASK, splits=splits).test.labels) == {"crack"}  # type: ignore[arg-type]

    def test_groups_are_kept_together_unless_told_otherwise(self) -> None:
        examples = [e.model_copy(update={"group": f"g{n // 6}"}) for n, e in enumerate(some(120))]
        dataset = Dataset(examples, task=TASK)

        def crossing(split: Dataset) -> int:
            sides = {(example.group, split.split_of(example.id)) for example in split}
            return len(sides) - 20

        assert crossing(dataset.split()) == 0
        assert crossing(dataset.split(grouped=True, validation=0.2)) == 0
        assert crossing(dataset.split(grouped=False)) > 0

    def test_groups_must_exist_to_be_asked_for(self) -> None:
        with pytest.raises(SplitError, match="no example has a group"):
            data().split(grouped=True)

    def test_without_stratification_sizes_hold_and_classes_float(self) -> None:
        tests = [Counter(data(300).split(stratify=False, seed=seed).test.labels) for seed in range(4)]
        assert {counts.total() for counts in tests} == {75}
        assert any(counts["dent"] != 25 for counts in tests)

    def test_moving_some(self) -> None:
        dataset = data().split()
        moved = dataset.with_splits({dataset.test.ids[0]: "train"})
        assert len(moved.train) == len(dataset.train) + 1
        assert len(dataset.test) == 15
        with pytest.raises(DataError, match="no example has the id"):
            dataset.with_splits({"gone": "train"})
        with pytest.raises(DataError, match="training lacks"):
            dataset.with_splits(dict.fromkeys((e.id for e in dataset if e.label == "dent"), "test"))


class TestParts:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 3))
    def test_subsets_are_nested_and_stratified(self, first: int, second: int, seed: int) -> None:
        small, large = sorted((first, second))
        dataset = data(90)
        inner, outer = dataset.subset(small, seed=seed), dataset.subset(large, seed=seed)
        assert len(inner) == small
        assert set(inner.ids) <= set(outer.ids)
        counts = Counter(inner.labels)
        assert max(counts.values()) - min(counts[label] for label in TASK.classes) <= 1
        assert list(inner.ids) == sorted(inner.ids)

    def test_a_subset_keeps_the_proportions_of_the_splits(self) -> None:
        subset = data(120).split(test=0.25).subset(60)
        assert (len(subset.train), len(subset.test)) == (45, 15)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_small_subset_of_a_split_trains_what_it_tests(self, seed: int) -> None:
        for dataset in (data(60), damaged(60)):
            split = dataset.split(test=0.4, seed=seed)
            for n in range(1, 20):
                assert len(split.subset(n, seed=seed)) == n

    @pytest.mark.parametrize("n", [0, -1, 61])
    def test_an_impossible_size(self, n: int) -> None:
        with pytest.raises(DataError, match=f"cannot take {n} of 60"):
            data().subset(n)

    def test_without_and_filter(self) -> None:
        dataset = data(6).without(["000.jpg", "005.jpg"])
        assert dataset.ids == ("001.jpg", "002.jpg", "003.jpg", "004.jpg")
        assert set(dataset.filter(lambda example: example.label == "dent").labels) == {"dent"}
        with pytest.raises(DataError, match="no example has the id 'gone'"):
            dataset.without(["gone"])
        with pytest.raises(DataError, match="no example is left"):
            dataset.without(dataset.ids)

    def test_dropping_the_last_training_photo_of_a_class(self) -> None:
        dataset = data(60).split()
        with pytest.raises(DataError, match="training lacks: 'dent'"):
            dataset.without([example.id for example in dataset.train if example.label == "dent"])

    def test_relabelling(self) -> None:
        dataset = data(6).relabel({"000.jpg": "Delle"})
        assert dataset[0].label == "dent"
        with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
            dataset.relabel({"001.jpg": "Dent"})
        with pytest.raises(DataError, match="no example has the id"):
            dataset.relabel({"x": "dent"})

    def test_another_task(self) -> None:
        task = Task(prompt="Broken?", classes=("yes", "no"), aliases={"yes": ("crack", "dent"), "no": ("scratch",)})
        assert data(3).with_task(task).labels == ("yes", "yes", "no")
        with pytest.raises(UnknownLabelError):
            data(3).with_task(Task(prompt="?", classes=("crack", "dent")))


class TestLimit:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 3))
    def test_a_larger_one_keeps_a_smaller_one(self, first: int, second: int, seed: int) -> None:
        small, large = sorted((first, second))
        dataset = data(60).split()
        inner, outer = dataset.limit(small, seed=seed), dataset.limit(large, seed=seed)
        assert Counter(inner.labels) == dict.fromkeys(TASK.classes, min(small, 20))
        assert set(inner.ids) <= set(outer.ids)

    def test_classes_and_splits(self) -> None:
        dataset = data(60).split(test=0.25).limit({"crack": 4, "dent": 8})
        assert Counter(dataset.labels) == {"crack": 4, "dent": 8, "scratch": 20}
        assert Counter(dataset.test.labels) == {"crack": 1, "dent": 2, "scratch": 5}

    def test_another_seed_chooses_others(self) -> None:
        assert len({data().limit(5, seed=seed).ids for seed in range(4)}) == 4

    def test_impossible_numbers(self) -> None:
        with pytest.raises(UnknownLabelError, match="did you mean 'dent'"):
            data().limit({"dnet": 3})
        with pytest.raises(DataError, match="limit=0 leaves nothing of 'crack'"):
            data().limit(0)

    def test_several_classes_count_for_each(self) -> None:
        dataset = damaged(200).limit({"crack": 10, "none": 3})
        counts = Counter(label for text in dataset.labels for label in text.split(", "))
        assert counts["crack"] == 10
        assert counts["none"] == 3
        assert counts["dent"] > 20


class TestSeveralClasses:
    @pytest.mark.parametrize("seed", range(4))
    def test_every_class_is_cut_in_the_same_proportions(self, seed: int) -> None:
        dataset = damaged(400).split(test=0.25, seed=seed)
        assert len(dataset.test) == 100
        balance = dataset.balance(test=0.25)
        assert abs(balance.largest_deviation.points) < 2.5

    def test_groups_stay_whole(self) -> None:
        examples = [e.model_copy(update={"group": f"g{n // 4}"}) for n, e in enumerate(damaged(400))]
        dataset = Dataset(examples, task=DAMAGE).split(test=0.25)
        balance = dataset.balance(test=0.25)
        assert balance.num_groups == balance.num_whole_groups == 100
        assert abs(balance.largest_deviation.points) < 6

    @settings(max_examples=20, deadline=None)
    @given(st.integers(6, 150), st.integers(6, 150), st.integers(0, 3))
    def test_subsets_are_nested(self, first: int, second: int, seed: int) -> None:
        small, large = sorted((first, second))
        dataset = damaged(150)
        inner, outer = dataset.subset(small, seed=seed), dataset.subset(large, seed=seed)
        assert len(inner) == small
        assert set(inner.ids) <= set(outer.ids)
        assert {label for text in inner.labels for label in text.split(", ")} == {*DAMAGE.classes, "none"}

    def test_a_subset_keeps_the_proportions(self) -> None:
        dataset = damaged(400).split(test=0.25)
        half = dataset.subset(200)
        assert abs(len(half.test) - 50) <= 3
        for label in DAMAGE.classes:
            whole = sum(label in text for text in dataset.labels)
            assert abs(sum(label in text for text in half.labels) - whole / 2) <= 3

    def test_show_and_frame_count_each_class(self, capsys: pytest.CaptureFixture[str]) -> None:
        examples = [
            Example(id=f"{n}", image=b"", label=label) for n, label in enumerate(("crack, dent", "dent", "none"))
        ]
        dataset = Dataset(examples, task=DAMAGE)
        dataset.show()
        counts = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
        assert ["dent", "2"] in counts
        assert ["none", "1"] in counts
        assert dataset.frame()[["crack", "dent", "scratch"]].to_numpy().tolist() == [
            [True, True, False],
            [False, True, False],
            [False, False, False],
        ]
        assert repr(dataset) == "Dataset(3 examples, 2 classes)"


class TestOneImage:
    def one(self) -> Dataset:
        return data(3).filter(lambda example: example.label == "dent")

    def test_it_makes_no_dataset_but_may_be_a_part(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(DataError, match="the only example is labelled 'dent'; a dataset needs examples of two"):
            Dataset(some(3)[1:2], task=TASK)
        one = self.one()
        assert repr(one) == "Dataset(1 examples, 1 classes)"
        assert one.subset(1).ids == one.limit(1).ids == one.ids
        assert len(one.frame()) == 1
        one.show()
        assert "1 examples" in capsys.readouterr().out

    def test_it_cannot_be_split(self) -> None:
        with pytest.raises(SplitError, match=r"too few examples of 'dent' \(1\)"):
            self.one().split()


class TestReaders:
    def test_a_folder(self, tmp_path: Path) -> None:
        for name in ("train/crack/p1.jpg", "train/dent/p2.jpg", "test/dent/p1.jpg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        dataset = Dataset.from_folder(tmp_path, task=TASK, group=r"(p\d)")
        assert repr(dataset) == "Dataset(3 examples, 2 classes, train 2, test 1)"
        assert dataset.by_id("test/dent/p1.jpg").group == "p1"
        (tmp_path / "test/scratch").mkdir()
        (tmp_path / "test/scratch/1.jpg").write_bytes(b"")
        with pytest.raises(DataError, match="training lacks: 'scratch'"):
            Dataset.from_folder(tmp_path, task=TASK)

    def test_a_folder_with_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "dent").mkdir()
        (tmp_path / "dent/1.jpg").write_bytes(b"")
        with pytest.raises(DataError, match="the only example is labelled 'dent'"):
            Dataset.from_folder(tmp_path, task=TASK)

    def test_a_table(self, tmp_path: Path) -> None:
        for name in ("1.jpg", "2.jpg"):
            (tmp_path / name).write_bytes(b"")
        table = tmp_path / "t.csv"
        table.write_text("file,class,fold\n1.jpg,crack,train\n2.jpg,Delle,\n")
        dataset = Dataset.from_table(table, task=TASK, image="file", label="class", split="fold")
        assert dataset.labels == ("crack", "dent")
        assert dataset.splits == {"1.jpg": "train"}
        table.write_text("image,label\n1.jpg,crack\n./1.jpg,dent\n")
        with pytest.raises(DataError, match="occur more than once"):
            Dataset.from_table(table, task=TASK)


class TestFace:
    def test_show(self, capsys: pytest.CaptureFixture[str]) -> None:
        task = Task(prompt="?", classes=("[red]x[/red]", "y"))
        Dataset([Example(id=f"{n}", image=b"", label=task.classes[n % 2]) for n in range(8)], task=task).split().show()
        shown = capsys.readouterr().out
        assert "[red]x[/red]" in shown
        assert "train" in shown
        assert "validation" not in shown

    def test_frame(self, tmp_path: Path) -> None:
        examples = [*some(3), Example(id="p", image=tmp_path / "p.jpg", label="dent", group="g")]
        frame = Dataset(examples, task=TASK, splits={"p": "test"}).frame()
        assert list(frame.columns) == ["id", "label", "split", "group", "image"]
        assert frame.iloc[3].tolist() == ["p", "dent", "test", "g", str(tmp_path / "p.jpg")]
        assert frame["image"].isna().tolist() == [True, True, True, False]


def test_a_hundred_thousand_examples_take_seconds() -> None:
    examples = [Example(id=f"{n}", image=b"", label=TASK.classes[n % 3], group=f"{n // 4}") for n in range(100_000)]
    start = time.perf_counter()
    dataset = Dataset(examples, task=TASK).split(validation=0.1)
    dataset.subset(50_000)
    dataset.fingerprint
    assert time.perf_counter() - start < 40


@pytest.mark.data
def test_shots_of_one_part_stay_together(test_data: Path) -> None:
    root = test_data / "magnetic_tile"
    classes = tuple(sorted(folder.name for folder in root.iterdir() if folder.is_dir()))
    task = Task(prompt="Which defect does the tile have?", classes=classes)
    dataset = Dataset.from_folder(root, task=task, group=r"(exp\d+)_").split(test=0.25)
    assert len(dataset) == 592
    assert not {e.group for e in dataset.train} & {e.group for e in dataset.test}
    assert set(dataset.test.labels) == set(classes)
    assert 0.1 < len(dataset.test) / len(dataset) < 0.4
