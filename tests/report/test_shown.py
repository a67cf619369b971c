"""Every public result shows itself in a notebook as it does in a terminal, whatever its labels are called."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from html import unescape
from importlib import import_module
from pathlib import Path

import pytest

import vlm_tune as vt
from tests.experiments.test_sweep_result import result_of, trial
from tests.report.conftest import Page
from vlm_tune._console import Shown
from vlm_tune._html import fragment
from vlm_tune.cost import Cost
from vlm_tune.evaluation.exports import Variant
from vlm_tune.experiments import CurvePoint
from vlm_tune.leakage import LeakPair
from vlm_tune.profiling import profile
from vlm_tune.records import Record
from vlm_tune.statistics import wilson
from vlm_tune.testing import tiny_dataset

TAGS = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td", "p", "pre", "code", "span"}
HOSTILE = "<b>[i]"
"""Would be a tag in HTML, and is a style in rich's markup."""


def public() -> dict[str, type]:
    """Every class that the door or the reference names."""
    found = {name: getattr(vt, name) for name in vt.__all__}
    for page in Path("docs/reference").glob("*.md"):
        for name in re.findall(r"^::: vlm_tune\.([\w.]+)\.([A-Z]\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            found[name[1]] = getattr(import_module(f"vlm_tune.{name[0]}"), name[1])
    return {name: kind for name, kind in found.items() if inspect.isclass(kind)}


def has_own_view(kind: type) -> bool:
    return issubclass(kind, Shown) and kind._rich is not Record._rich


def test_every_public_result_shows_itself() -> None:
    """Whatever has a table or a picture of itself, and every record, is `Shown`, which shows them all in one way."""
    looked_at = ("frame", "plot", "show", "_repr_html_")
    results = [kind for kind in public().values() if any(hasattr(kind, name) for name in looked_at)]
    assert len(results) > 50
    assert [kind.__name__ for kind in results if not issubclass(kind, Shown)] == []
    assert [kind.__name__ for kind in results if {"show", "_repr_html_"} & set(vars(kind))] == []


@pytest.mark.parametrize(
    "kind", [kind for kind in public().values() if issubclass(kind, Record) and not has_own_view(kind)]
)
def test_a_record_without_a_view_of_its_own_is_a_table_of_its_fields(kind: type[Record]) -> None:
    record = kind.__new__(kind)
    # Past every check: no field of any record may be trusted.
    record.__setstate__({"__dict__": dict.fromkeys(kind.model_fields, HOSTILE)})
    words = safe(record)
    for name, field in kind.model_fields.items():
        assert (f">{name}<" in record.to_html()) == field.repr
    assert HOSTILE in words


def test_nested_records_and_long_fields_are_shown_too() -> None:
    task = vt.Task(prompt="Which?", classes=tuple(f"{HOSTILE}{at}" for at in range(40)))
    words = safe(task)
    assert f"{HOSTILE}0" in words
    assert "+30" in words
    example = vt.Example(id=HOSTILE, image=b"secret pixels", label="dent")
    assert "secret" not in safe(example)


def test_every_view_of_the_door_is_safe(views: Mapping[str, Shown]) -> None:
    """A result that is new on the door, with a view of its own, has to be given here."""
    wanted = {name for name, kind in public().items() if name in vt.__all__ and has_own_view(kind)}
    assert set(views) == wanted
    assert [name for name, view in views.items() if HOSTILE not in safe(view)] == []


def test_in_a_notebook_show_and_the_last_line_of_a_cell_are_the_same(
    views: Mapping[str, Shown], capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = views["Comparison"]
    comparison.show()
    printed = capsys.readouterr().out
    assert HOSTILE in printed
    assert comparison._repr_html_() == comparison.to_html()
    same = {line.strip() for line in words_of(comparison.to_html()).splitlines()}
    # Wider than this terminal or not, the sentence below the tables is there.
    assert any(line and line in printed for line in same)


def safe(shown: Shown) -> str:
    """Return the words of what a notebook shows, in which nothing is a tag but the frame and the colours."""
    html = shown._repr_html_()
    page = Page()
    page.feed(html)
    assert {tag for tag, _ in page.elements} <= TAGS, html
    assert {name for _, attributes in page.elements for name in attributes} <= {"style"}
    return words_of(html)


def words_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html))


@pytest.fixture
def views(trained: list[object], tmp_path: Path) -> Mapping[str, Shown]:
    """One of every result on the door with a view of its own, all of systems and classes with a hostile name."""
    plan, overfit, adapter, merge = trained
    assert isinstance(plan, vt.AdapterPlan)
    assert isinstance(overfit, vt.OverfitReport)
    assert isinstance(adapter, vt.Adapter)
    assert isinstance(merge, vt.MergeReport)
    adapter.name = HOSTILE
    tuned, base = (asked(name, right) for name, right in ((HOSTILE, 70), (f"{HOSTILE} base", 40)))
    data = tiny_dataset(12, root=tmp_path / "few")
    renamed = vt.Task(prompt="Which?", classes=(HOSTILE, *data.task.classes[1:]))
    examples = [
        one.model_copy(update={"label": HOSTILE if one.label == data.task.classes[0] else one.label}) for one in data
    ]
    data = vt.Dataset(examples, task=renamed).split(test=0.25, seed=0)
    points = [
        CurvePoint.of(tuned, size=size, seed=0, train_accuracy=wilson(size, size), seconds=1) for size in (25, 50)
    ]
    audit = adapter.training.audit
    check = overfit.checks[0].model_copy(update={"name": HOSTILE, "detail": HOSTILE, "hint": HOSTILE})
    pair = LeakPair(
        a_id=HOSTILE, a_split="test", b_id=f"{HOSTILE}b", b_split="train", a_label="dent", b_label=HOSTILE,
        tier="identical", similarity=1.0,
    )  # fmt: skip
    leakage = vt.LeakageChecker(None).check(data)
    places = {HOSTILE: ("test", "dent"), f"{HOSTILE}b": ("train", HOSTILE)}
    leakage = leakage.model_copy(update={"pairs": (pair,), "places": places})
    sweep = result_of(trial(0), trial(1)).model_copy(update={"model": HOSTILE})
    variant = Variant(
        name=HOSTILE, source="s", weights="int8", accuracy=None, photos_per_s=1, load_s=1, weights_gb=1, peak_gb=None,
        disk_gb=None,
    )  # fmt: skip
    shown: list[Shown] = [
        plan.model_copy(update={"model": HOSTILE}),
        overfit.model_copy(update={"checks": (check,)}),
        adapter,
        merge.model_copy(update={"base_quantization": HOSTILE}),
        audit.model_copy(update={"trained_text": {HOSTILE: HOSTILE}, "example_id": HOSTILE}),
        tuned,
        vt.Comparison(candidate=tuned, reference=base),
        vt.ComparisonMatrix([tuned, base]),
        vt.Report([tuned, base], title=HOSTILE),
        vt.Estimate(value=1, low=0.5, high=1, n=3, method=HOSTILE),
        vt.Calibration(tuned),
        vt.RiskCoverage(tuned),
        vt.Cascade(first=tuned, second=base, threshold=vt.RiskCoverage(tuned).threshold_for(accuracy=0.5)),
        vt.CostModel(api=Cost.exact(0.01, basis=HOSTILE)),
        data,
        profile(data),
        leakage,
        vt.LabelAudit([tuned, base]),
        vt.LearningCurve(points=points, classes=tuned.classes, chance=0.5, name=HOSTILE),
        sweep,
        vt.ExportReport(
            variants=(variant,), device=HOSTILE, num_photos=1, classes=("a", "b"), dataset_fingerprint="f", packages={}
        ),
        vt.ServingCheck(
            folder=Path(HOSTILE), kind="merged", model=Path("m"), architecture=HOSTILE, dtype="bfloat16",
            max_pixels=1, processor_settings={}, commands=(), runtime=(), findings=(),
        ),
    ]  # fmt: skip
    return {type(one).__name__: one for one in shown}


def asked(name: str, right: int) -> vt.Evaluation:
    """A system on 80 photos of two classes, sure of most answers, that is right on so many."""
    classes = (HOSTILE, "dent")
    examples = [vt.Example(id=f"{HOSTILE}{at}", image=b"%d" % at, label=classes[at % 2]) for at in range(80)]
    place = {one.id: at for at, one in enumerate(examples)}

    def say(one: vt.Example) -> vt.Prediction:
        label = one.label if place[one.id] < right else classes[1 - classes.index(one.label)]
        share = 0.7 + place[one.id] % 25 / 100
        scores = {known: math.log(share if known == label else 1 - share) for known in classes}
        return vt.Prediction(example_id=one.id, outcome="answered", label=label, scores=scores, cost_usd=0.001)

    data = vt.Dataset(examples, task=vt.Task(prompt="Which?", classes=classes))
    return vt.Evaluator(data).run(vt.testing.ScriptedPredictor(say, name=name))


def test_tables_are_tables_with_their_heads_feet_and_styles() -> None:
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table("class", title="<i>Photos</i>", show_footer=True)
    table.add_column("n", justify="right", footer="3")
    table.add_row(Text("dent", style="bold red"), "3", style="dim")
    html = fragment(Group(table, Text("a & b"), Text(""), Panel("<u>")))
    page = Page()
    page.feed(html)
    assert [tag for tag, _ in page.elements] == [
        *("table", "caption", "thead", "tr", "th", "th", "tbody", "tr", "td", "span", "td", "tfoot", "tr", "th", "th"),
        *("p", "pre"),
    ]
    assert words_of(html).startswith("<i>Photos</i>classndent33a & b")
    assert html.count("text-align:right") == 3
    assert "font-weight: bold" in html
    assert "&lt;u&gt;" in html
