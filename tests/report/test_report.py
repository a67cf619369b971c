"""The report is right, self-contained, escaped and complete."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlm_tune import plots
from vlm_tune.data import Dataset
from vlm_tune.embedding import PixelEmbedder
from vlm_tune.errors import EvaluationError, StorageError
from vlm_tune.evaluation import Comparison, Evaluation, Evaluator
from vlm_tune.leakage import LeakageChecker
from vlm_tune.profiling import profile
from vlm_tune.records import Example
from vlm_tune.report import Report
from vlm_tune.report.sections import section
from vlm_tune.task import Task
from vlm_tune.testing import ScriptedPredictor

CLASSES = ("crack", "dent", "scratch")
HOSTILE = ('<script>alert("x")</script>', "\"><img src=x onerror='alert(1)'>", "{{ 7 * 7 }} & $x$ 裂纹")

Read = Callable[[Path], Any]
Pair = tuple[Evaluation, Evaluation]
Three = tuple[Evaluation, Evaluation, Evaluation]


def test_the_answer_scoreboard_and_verdict_are_on_the_page(damage: Three, tmp_path: Path, read: Read) -> None:
    base, rival, tuned = damage
    fixed, verdict = Comparison(candidate=tuned, reference=base), Comparison(candidate=tuned, reference=rival)
    report = Report(damage, sections=[fixed, verdict], title="Car damage")
    page = read(report.save(tmp_path / "report.html"))
    assert report.answer == "tuned leads rival by 6.1 points [-1.5, 14.4] on 98 photos, which is not established."
    for words in (
        "Car damage",
        report.answer,
        "98 test photos · 3 classes · 3 systems",
        "10 wins, 4 losses, exact McNemar p = 0.180. About 320 test photos would settle it.",
        "88.8 [81.0, 93.6]",
        "82.7 [74.0, 88.9]",
        "p = 0.118",
        verdict.sentence,
        "tuned beats base by 34.7 points",
    ):
        assert words in page.words
    assert page.words.index("tuned against rival") < page.words.index("tuned against base")


def test_several_classes_have_exact_match_f1_and_no_confusion_matrix(tmp_path: Path, read: Read) -> None:
    truth = {f"{n}.jpg": ["none", "crack", "dent", "crack, dent"][n % 4] for n in range(40)}
    said = {"base": dict.fromkeys(truth, "crack"), "tuned": {**truth, "0.jpg": "dent", "1.jpg": "rust"}}
    base, tuned = (
        Evaluation.from_answers(name, truth=truth, answers=said[name], classes=("crack", "dent"), multi_label=True)
        for name in said
    )
    report = Report([base, tuned], sections=[Comparison(candidate=tuned, reference=base)])
    page = read(report.save(tmp_path / "report.html"))
    for words in (
        "Exact match on the test photos, with 95 % intervals; the dotted line is chance (25.0 %)",
        "an exact match names all that do and no other",
        "95.0 [83.5, 98.6]",
        f"base50.0 % [{100 * base.micro_f1.low:.1f}, {100 * base.micro_f1.high:.1f}]",
        "F1 per class",
        "crack (n = 20)67 % [52, 79]97 % [87, 100]",
        "Mistakes per class",
        "crack0 missed, 20 added1 missed, 0 added",
        "dent20 missed, 0 added0 missed, 1 added",
        "“rust”",
    ):
        assert words in page.words, words
    assert "Confusion" not in page.words
    assert page.with_class("confusion") == []
    data = json.loads((tmp_path / "report.json").read_text())
    assert [one["confusion"] for one in data["evaluations"]] == [None, None]
    assert data["evaluations"][1]["micro_f1"]["value"] == tuned.micro_f1.value
    assert report.frame().loc["tuned", "macro_f1"] == tuned.macro_f1.value
    words = ET.fromstring(plots.figure_to_svg(report.plot())).itertext()
    assert "Exact match" in " ".join(words)


def test_without_a_comparison_the_best_system_is_the_answer(damage: Three) -> None:
    assert Report(damage).answer == "tuned is right on 88.8 % [81.0, 93.6] of 98 photos."


def test_every_verdict_has_a_headline(damage: Three) -> None:
    base, rival, tuned = damage

    def answer(one: Evaluation, other: Evaluation, margin: float = 0.03) -> str:
        return Report([one], sections=[Comparison(candidate=one, reference=other, margin=margin)]).answer

    assert answer(tuned, base).startswith("tuned beats base by 34.7 points [")
    assert re.match(r"base loses to tuned by 34\.7 points \[2\d\.\d, 4\d\.\d\] on 98", answer(base, tuned))
    assert answer(rival, tuned).startswith("rival trails tuned by 6.1 points [-1.5, 14.4]")
    assert answer(tuned, rival, 0.2) == "tuned and rival are equivalent: within 20 points on 98 photos."
    assert answer(tuned, replace(tuned, name="twin"), 0.001).startswith("tuned and twin are level")


def test_the_json_beside_it_has_the_same_numbers(damage: Three, tmp_path: Path, read: Read) -> None:
    _, rival, tuned = damage
    Report(damage, sections=[Comparison(candidate=tuned, reference=rival)]).save(tmp_path / "out" / "r.html")
    data = json.loads((tmp_path / "out" / "r.json").read_text())
    assert data["schema_version"] == 1
    assert [one["name"] for one in data["evaluations"]] == ["base", "rival", "tuned"]
    accuracy = data["evaluations"][2]["accuracy"]
    assert accuracy["n"] == 98
    assert [round(accuracy[key], 3) for key in ("value", "low", "high")] == [0.888, 0.810, 0.936]
    assert (data["comparisons"][0]["wins"], data["comparisons"][0]["losses"]) == (10, 4)
    assert data["packages"]["torch"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["r.html", "r.json"]


def test_the_page_loads_nothing_and_runs_only_its_own_script(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    sections = [Comparison(candidate=oracle, reference=seer), profile(photos), *trained]
    page = read(Report([seer, oracle], sections=sections).save(tmp_path / "report.html"))
    references = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("href", "src", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert references
    assert [value for value in references if not re.match(r"#\S+$|data:image/jpeg;base64,", value or "")] == []
    assert not re.search(r"url\((?!#)|@import", page.texts["style"])
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    assert [attributes for _, attributes in page.elements if "style" in attributes] == []
    policy = page.all("meta")[1]["content"] or ""
    for part in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.texts[part].encode()).digest()).decode()
        assert f"{part}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_ids_are_unique_links_lead_somewhere_and_pictures_have_words(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    comparisons = [
        Comparison(candidate=oracle, reference=seer),
        Comparison(candidate=seer, reference=oracle),
    ]
    sections = [*comparisons, *trained, *trained]
    page = read(Report([seer, oracle], sections=sections).save(tmp_path / "report.html"))
    ids = Counter(attributes["id"] for _, attributes in page.elements if "id" in attributes)
    assert [name for name, times in ids.items() if times > 1] == []
    targets = {value[1:] for _, found in page.elements if (value := found.get("href") or "").startswith("#")}
    assert targets - set(ids) == set()
    labelled = {found["aria-labelledby"] for _, found in page.elements if "aria-labelledby" in found}
    assert labelled - set(ids) == set()
    pictures = [found for found in page.all("svg") if "aria-hidden" not in found]
    assert [found for found in pictures if found.get("role") != "img" or not found.get("aria-label")] == []
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1


def test_labels_ids_and_names_are_escaped(tmp_path: Path, read: Read) -> None:
    task = Task(prompt="<b>What</b> is it?", classes=HOSTILE)
    examples = [Example(id=f"{label}/{at}", image=b"", label=label) for label in HOSTILE for at in range(2)]
    truth = {example.id: example.label for example in examples}
    wrong = {example.id: HOSTILE[0] for example in examples}
    one = Evaluation.from_answers("<i>one</i>" + HOSTILE[0], truth=truth, answers=truth, classes=HOSTILE)
    other = Evaluation.from_answers("</title><script>", truth=truth, answers=wrong, classes=HOSTILE)
    one = replace(one, task=task)
    sections = [Comparison(candidate=one, reference=other)]
    path = Report([one, other], sections=sections, title="</title><script>alert(2)</script>").save(tmp_path / "r.html")
    page = read(path)
    assert [found.get("type") for found in page.all("script")] == ["application/json", None]
    assert {tag for tag, _ in page.elements} & {"img", "i", "b"} == {"b"}
    assert all(label in page.words for label in HOSTILE)
    assert "<b>What</b> is it?" in page.words
    assert page.words.count("</title><script>alert(2)</script>") == 2
    assert json.loads(path.with_suffix(".json").read_text())["evaluations"][0]["classes"] == list(HOSTILE)


def test_no_folder_of_this_machine_is_told(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    sections = [Comparison(candidate=oracle, reference=seer), profile(photos), *trained]
    path = Report([seer, oracle], sections=sections).save(tmp_path / "report.html")
    for file in (path, path.with_suffix(".json")):
        assert str(tmp_path) not in file.read_text()
        assert "private" not in file.read_text()


def test_disagreements_are_shown_with_their_photos(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    comparison = Comparison(candidate=oracle, reference=seer)
    page = read(Report([seer, oracle], sections=[comparison]).save(tmp_path / "report.html"))
    shown = Counter(card["data-tag"] for card in page.with_class("card"))
    assert shown == Counter(comparison.tags.values())
    assert comparison.wins > 3
    assert len(page.all("image")) == len(photos.test)
    first = base64.b64decode((page.all("image")[0]["href"] or "").partition(",")[2])
    with Image.open(io.BytesIO(first)) as thumbnail:
        assert max(thumbnail.size) <= 200
    assert "“purple?”" in page.words


def test_a_page_has_room_for_so_many_photos_and_says_what_is_left_out(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    comparison = Comparison(candidate=oracle, reference=seer)
    page = read(Report([seer, oracle], sections=[comparison], photos=2).save(tmp_path / "report.html"))
    assert len(page.all("image")) == 2
    assert {card["data-tag"] for card in page.with_class("card")} == {"candidate_only"}
    assert f"{len(photos.test) - 2} more photos are left out" in page.words


def test_photos_that_are_gone_do_not_stop_the_report(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    shutil.rmtree(tmp_path / "private")
    comparison = Comparison(candidate=oracle, reference=seer)
    page = read(Report([seer, oracle], sections=[comparison]).save(tmp_path / "report.html"))
    assert page.all("image") == []
    assert "photo not kept" in page.words
    assert len(page.with_class("card")) == len(photos.test)


def test_too_few_answers_give_bounds_and_no_headline(tmp_path: Path, read: Read) -> None:
    truth = {str(at): CLASSES[at % 3] for at in range(20)}
    some = {key: truth[key] for key in list(truth)[:12]}
    silent = Evaluation.from_answers("silent", truth=truth, answers=some, classes=CLASSES)
    report = Report([silent])
    page = read(report.save(tmp_path / "report.html"))
    assert report.answer == "No system answered enough photos to say how good it is."
    assert "between 60.0 and 100.0: too few answers" in page.words
    assert "8 photos got no answer and are left out" in page.words
    assert json.loads((tmp_path / "report.json").read_text())["evaluations"][0]["accuracy"] is None
    assert report.frame().loc["silent", "high"] == 1.0
    assert report.plot()


def test_many_classes_and_photos_are_summarised(tmp_path: Path, read: Read) -> None:
    classes = [f"class {at:03d}" for at in range(100)]
    truth = {f"{at}.png": classes[at % 100] for at in range(3000)}
    rng = np.random.default_rng(0)
    answers = {key: label if rng.random() < 0.8 else classes[int(rng.integers(100))] for key, label in truth.items()}
    one = Evaluation.from_answers("one", truth=truth, answers=answers, classes=classes)
    other = Evaluation.from_answers("other", truth=truth, answers=truth, classes=classes)
    path = Report([one, other], sections=[Comparison(candidate=one, reference=other)]).save(tmp_path / "r.html")
    page = read(path)
    assert path.stat().st_size < 1_000_000
    assert "25 of 100 classes" in page.words
    assert page.with_class("confusion") == []
    assert " → class " in page.words
    assert len(page.with_class("card")) == 200
    assert "2 800 more photos are left out" in page.words.replace("\u202f", " ")


def test_two_runs_of_one_system_are_told_apart(damage: Three, tmp_path: Path, read: Read) -> None:
    _, rival, tuned = damage
    again = replace(rival, name="tuned", predictor_fingerprint="other")
    comparison = Comparison(candidate=tuned, reference=again)
    page = read(Report([tuned, again], sections=[comparison]).save(tmp_path / "report.html"))
    assert "tuned against tuned (run 2)" in page.words


def test_a_comparison_may_be_with_a_system_that_is_not_on_the_scoreboard(
    damage: Three, tmp_path: Path, read: Read
) -> None:
    _, rival, tuned = damage
    comparison = Comparison(candidate=tuned, reference=rival)
    page = read(Report([tuned], sections=[comparison]).save(tmp_path / "report.html"))
    assert "98 test photos · 3 classes · 1 system" in page.words
    assert Counter(card["data-tag"] for card in page.with_class("card"))["candidate_only"] == 10


def test_every_kind_of_result_has_a_section(
    seen: Pair, photos: Dataset, trained: list[object], tmp_path: Path, read: Read
) -> None:
    seer, oracle = seen
    results = [profile(photos), *trained]
    page = read(Report([seer, oracle], sections=results).save(tmp_path / "report.html"))
    for words in ("The data", "Training plan", "Overfit gate", "Training", "Merge, with proof", "Provenance"):
        assert words in page.words
    assert "swapped: 3 of 10 keep their answer; look for images" not in page.words
    assert "3 of 10 keep their answer; look for images that get mixed up" in page.words
    data = json.loads((tmp_path / "report.json").read_text())
    assert {"profile", "plan", "overfit", "adapter", "merge"} <= set(data)
    assert data["overfit"]["passed"] is False
    registered = {kind.__name__ for kind in section.registry if kind is not object}
    elsewhere = {"Comparison", "ComparisonMatrix", "Calibration", "RiskCoverage", "Cascade", "CostModel", "Inflation"}
    elsewhere |= {"LeakageReport", "LearningCurve", "SweepResult", "LabelAudit", "Rescored"}
    assert registered == {type(result).__name__ for result in results} | elsewhere
    # All that is told of them is listed where a reader looks for it.
    assert [name for name in sorted(registered) if f"`{name}`" not in (Report.__doc__ or "")] == []


def test_leaks_are_shown_side_by_side_and_a_leaky_test_split_is_called_out(
    photos: Dataset, tmp_path: Path, read: Read
) -> None:
    copied = [photos.train[at] for at in (0, 9)]
    twins = [Example(id=f"twin/{at}.png", image=one.image, label=one.label) for at, one in enumerate(copied)]
    twins[1] = twins[1].model_copy(update={"label": "red" if copied[1].label != "red" else "blue"})
    splits = {**photos.splits, "twin/0.png": "test", "twin/1.png": "test"}
    leaky = Dataset([*photos, *twins], task=photos.task, splits=splits)
    report = LeakageChecker(PixelEmbedder()).check(leaky)
    assert {pair.a_id for pair in report.leaks} == {"twin/0.png", "twin/1.png"}

    for data, caution in ((leaky, True), (report.resolve(leaky), False)):
        oracle = Evaluator(data.test).run(ScriptedPredictor(lambda one: one.label, name="oracle"))
        page = read(Report([oracle], sections=[report]).save(tmp_path / "report.html"))
        assert ("Caution: 2 of the test photos have a near-duplicate in training" in page.words) is caution
        assert "2 evaluation photos have a copy in another split" in page.words
        assert "Similarity 1.000, same bytes." in page.words
        assert page.words.count("The labels differ: one is wrong.") == 1
        assert [found["title"] for found in page.with_class("badge")][:2] == ["the same bytes or the same pixels"] * 2
        text = (tmp_path / "report.json").read_text()
        assert len(json.loads(text)["leakage"]["pairs"]) == len(report.pairs)
        assert str(tmp_path) not in text + (tmp_path / "report.html").read_text()


def test_what_has_no_section_is_refused_at_once(damage: Three) -> None:
    with pytest.raises(TypeError, match=r"no section for dict; it has some for Adapter, AdapterPlan, Calibration, "):
        Report(damage, sections=[{}])
    with pytest.raises(EvaluationError, match="at least one evaluation"):
        Report([])


def test_a_place_that_cannot_be_written_leaves_nothing(damage: Three, tmp_path: Path, read: Read) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        Report(damage).save(tmp_path / "file" / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_shows_frames_and_plots_itself(damage: Three, capsys: pytest.CaptureFixture[str]) -> None:
    base, _, tuned = damage
    report = Report(damage, sections=[Comparison(candidate=tuned, reference=base)], title="[bold]x[/bold]")
    report.show()
    printed = " ".join(capsys.readouterr().out.split())
    assert "[bold]x[/bold]" in printed
    assert "tuned beats base by 34.7 points" in printed
    frame = report.frame()
    assert list(frame.index) == ["base", "rival", "tuned"]
    assert round(frame.loc["tuned", "accuracy"], 3) == 0.888
    assert report.plot().axes


def test_the_prompt_of_every_system_is_shown_with_what_it_was_shown_besides(
    seen: Pair, tmp_path: Path, read: Read
) -> None:
    same = read(Report(seen).save(tmp_path / "same.html"))
    assert "The question, as every system got it" in same.words
    shown = replace(seen[1], prompt_note="Before the question, 2 examples were shown.", possibly_billed=3)
    page = read(Report([seen[0], shown]).save(tmp_path / "report.html"))
    assert f"The question, as {seen[0].name} got it" in page.words
    assert f"The question, as {shown.name} got it" in page.words
    assert page.words.count("Before the question, 2 examples were shown.") == 1
    assert f"{shown.name}: 3 calls broke off after they were sent: they are possibly billed" in page.words
