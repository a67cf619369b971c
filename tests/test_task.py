from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vlm_tune.errors import TaskError, UnknownLabelError
from vlm_tune.task import Task

TASK = Task(
    prompt="  What kind of damage is it? ",
    classes=("crack", "dent", "paint scratch"),
    aliases={"dent": ("Delle", "ding")},
    descriptions={"crack": "a line where the panel is broken through"},
)


class TestConstruction:
    @pytest.mark.parametrize(
        "arguments, reason",
        [
            ({"prompt": "?", "classes": ()}, "at least two classes, got 0"),
            ({"prompt": "?", "classes": ("a",)}, "at least two classes, got 1"),
            ({"prompt": " ", "classes": ("a", "b")}, "prompt is empty"),
            ({"prompt": "?", "classes": ("a", "b", "a")}, "classes must differ"),
            ({"prompt": "?", "classes": ("a", " A ")}, "classes must differ"),
            ({"prompt": "?", "classes": ("paint scratch", "paint  Scratch")}, "classes must differ"),
            ({"prompt": "?", "classes": ("a", "")}, "empty name"),
            ({"prompt": "?", "classes": ("a", "...")}, "empty name"),
            (
                {"prompt": "?", "classes": ("a", "b"), "aliases": {"a": ("B",)}},
                "names both 'b' and 'a'|'a' and 'b'",
            ),
            ({"prompt": "?", "classes": ("a", "b"), "aliases": {"a": ("",)}}, "empty name or alias"),
            ({"prompt": "?", "classes": ("a", "b"), "max_pixels": 0}, "Task.max_pixels"),
            ({"prompt": "?", "classes": ("a", "b"), "max_pixel": 9}, "Task.max_pixel"),
            ({"classes": ("a", "b")}, "Task.prompt"),
        ],
    )
    def test_a_malformed_task_is_refused(self, arguments: dict[str, object], reason: str) -> None:
        with pytest.raises(TaskError, match=reason):
            Task(**arguments)

    @pytest.mark.parametrize("field", ["aliases", "descriptions"])
    def test_mappings_about_unknown_classes_list_the_nearest(self, field: str) -> None:
        value = {"Dent": ("x",)} if field == "aliases" else {"Dent": "x"}
        with pytest.raises(UnknownLabelError, match=rf"Task\.{field}: label 'Dent' .*did you mean 'dent'"):
            Task(**{"prompt": "?", "classes": ("crack", "dent"), field: value})

    def test_it_is_frozen(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            TASK.prompt = "else"

    def test_an_alias_may_repeat_its_own_class(self) -> None:
        assert Task(prompt="?", classes=("a", "b"), aliases={"a": ("A", "a ")}).canonical("A") == "a"


class TestPrompt:
    def test_it_names_descriptions_and_classes_in_order(self) -> None:
        assert TASK.render() == (
            "What kind of damage is it?\n"
            "- crack: a line where the panel is broken through\n"
            "Answer with one of: crack, dent, paint scratch."
        )


class TestFingerprint:
    def test_it_changes_with_everything(self) -> None:
        changes = [
            {"prompt": "Which?"},
            {"classes": ("dent", "crack", "paint scratch")},
            {"aliases": {}},
            {"descriptions": {}},
            {"max_pixels": 100},
        ]
        fingerprints = {Task(**{**TASK.model_dump(), **change}).fingerprint for change in changes}
        assert len(fingerprints | {TASK.fingerprint}) == 6

    def test_it_is_the_same_in_another_process(self) -> None:
        made = f"Task.model_validate_json({TASK.model_dump_json()!r})"
        code = f"from vlm_tune.task import Task; print({made}.fingerprint)"
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert shown.strip() == TASK.fingerprint


class TestCanonical:
    def test_names_and_aliases_exactly(self) -> None:
        assert [TASK.canonical(name) for name in ("dent", "Delle", "paint scratch")] == [
            "dent",
            "dent",
            "paint scratch",
        ]

    @pytest.mark.parametrize(
        "slip, meant",
        [("Dent", "dent"), ("dent ", "dent"), ("paint  scratch", "paint scratch"), ("crak", "crack")],
    )
    def test_a_slip_lists_the_nearest(self, slip: str, meant: str) -> None:
        with pytest.raises(UnknownLabelError) as caught:
            TASK.canonical(slip, where="row 7")
        assert caught.value.nearest[0] == meant
        assert str(caught.value).startswith("row 7: ")


class TestParse:
    @pytest.mark.parametrize(
        "text, label",
        [
            ("dent", "dent"),
            ("Dent.", "dent"),
            ("**Dent**", "dent"),
            ('"crack"\n', "crack"),
            ("Answer: crack", "crack"),
            ("The answer is crack", None),
            ("answer is: crack.", "crack"),
            ("Paint\n  scratch!", "paint scratch"),
            ("DING", "dent"),
            ("It is a dent", None),
            ("dent or crack", None),
            ("dents", None),
            ("not dent", None),
            ("", None),
            ("...", None),
        ],
    )
    def test_only_exact_words_are_an_answer(self, text: str, label: str | None) -> None:
        assert TASK.parse(text) == label

    def test_a_class_that_begins_with_answer_keeps_its_name(self) -> None:
        task = Task(prompt="?", classes=("answer", "is missing", "missing"))
        assert [task.parse(name) for name in task.classes] == list(task.classes)

    @given(
        st.lists(st.text("abcXYZ 0-_é", min_size=1, max_size=8), min_size=2, max_size=6, unique=True),
        st.data(),
    )
    def test_every_class_parses_to_itself(self, classes: list[str], data: st.DataObject) -> None:
        try:
            task = Task(prompt="?", classes=tuple(classes))
        except TaskError:
            return
        label = data.draw(st.sampled_from(classes))
        assert task.parse(label) == label
        assert task.parse(f" {label}. ") == label
        assert task.canonical(label) == label
